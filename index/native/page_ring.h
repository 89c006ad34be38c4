// Reads through Linux's io_uring: one call of the system sends what was added and waits for what
// comes first, where a thread of a pool costs a change of threads for each. Of one thread at a
// time. It knows jobs and where they are read from, and nothing of what they mean.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "page_io.h"

namespace memdb {

class ReadRing {
 public:
  static constexpr uint32_t kRoom = 64;  // jobs under way at most

  // Null where the system has no such thing, or does not let this process have it.
  static std::unique_ptr<ReadRing> make();
  ~ReadRing();
  ReadRing(const ReadRing&) = delete;
  ReadRing& operator=(const ReadRing&) = delete;

  uint32_t under_way() const { return under_way_; }
  // The job must be there until it has arrived. Not for more than kRoom.
  void add(ReadJob* job);
  // Sends what was added, waits until `least` of those under way are done, and appends these.
  void wait(uint32_t least, std::vector<ReadJob*>& arrived);

 private:
  struct Shared;
  explicit ReadRing(std::unique_ptr<Shared> shared);
  void take(std::vector<ReadJob*>& arrived);

  std::unique_ptr<Shared> shared_;  // with the kernel
  uint32_t under_way_ = 0;
  uint32_t unsent_ = 0;
};

}  // namespace memdb
