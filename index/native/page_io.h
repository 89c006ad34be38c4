// Reads of files at offsets, many at once: what the system has at hand is taken on the spot, the
// rest is fetched by a few threads. It knows bytes and descriptors, and not what they mean.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace memdb {

// A read that the system refused: `number` is errno's.
struct ReadError : std::runtime_error {
  ReadError(int number_, const std::string& path_)
      : std::runtime_error("a read failed"), number(number_), path(path_) {}
  int number;
  std::string path;
};

constexpr uint32_t kReadBlock = 4096;  // reads past the page cache are of whole ones

struct Freed {
  void operator()(uint8_t* bytes) const { std::free(bytes); }
};
using Buffer = std::unique_ptr<uint8_t[], Freed>;
// `bytes` rounded up to whole blocks, at the beginning of one.
Buffer aligned_buffer(uint64_t bytes);

class Arrivals;
class FileReader;

// One read. The buffer has room for `FileReader::room(length)` bytes.
struct ReadJob {
  const FileReader* file = nullptr;
  uint64_t offset = 0;  // in the file's body
  uint32_t length = 0;
  uint8_t* buffer = nullptr;
  const uint8_t* data = nullptr;  // out: where in the buffer they begin
  uint32_t got = 0;               // out: at most length; fewer where the file ends
  int error = 0;                  // out: errno's, or 0
  Arrivals* arrivals = nullptr;   // told when a thread is done with it
};

// A file, opened anew so that its access pattern and its way past the page cache are its own.
// `direct`: not through the system's page cache (Linux, and not every file system).
class FileReader {
 public:
  FileReader(int descriptor, uint64_t body_offset, const std::string& path, bool direct);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  uint64_t room(uint32_t length) const;
  // Whether the job could be done without waiting; it is done then.
  bool at_once(ReadJob& job) const;
  // Waits for it.
  void read(ReadJob& job) const;

  const std::string& path() const { return path_; }
  uint64_t reads() const { return reads_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t waited() const { return waited_; }

 private:
  struct Extent;
  Extent extent(const ReadJob& job) const;
  void count(uint64_t bytes, bool waited) const;

  int descriptor_;
  uint64_t body_offset_;
  std::string path_;
  bool direct_;
  mutable std::atomic<bool> asks_first_{true};  // whether reads that do not wait are known here
  mutable std::atomic<uint64_t> reads_{0}, bytes_{0}, waited_{0};
};

// Where jobs arrive that threads have done; of one thread that waits for them.
class Arrivals {
 public:
  void sent() { ++under_way_; }
  uint32_t under_way() const { return under_way_; }
  // Waits for one or more of those under way.
  void wait(std::vector<ReadJob*>& arrived);
  void arrive(ReadJob* job);  // by the pool

 private:
  std::mutex guard_;
  std::condition_variable more_;
  std::vector<ReadJob*> done_;
  uint32_t under_way_ = 0;
};

// Up to `most` threads, begun as they are needed, that do jobs.
class ReadPool {
 public:
  explicit ReadPool(uint32_t most);
  ~ReadPool();
  ReadPool(const ReadPool&) = delete;
  ReadPool& operator=(const ReadPool&) = delete;

  // The job and its arrivals must be there until it has arrived.
  void submit(ReadJob* job);

 private:
  struct State;
  static void work(State& state);
  std::unique_ptr<State> state_;
  const uint32_t most_;
  const int64_t owner_;  // the process whose threads these are
};

// Does all jobs, side by side, and waits. Throws ReadError; then too no job is under way any more.
void read_all(ReadPool& pool, std::vector<ReadJob>& jobs, size_t count);

// Throws ReadError if the job failed.
void check_read(const ReadJob& job);

}  // namespace memdb
