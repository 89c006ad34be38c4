// Reads of files at offsets, many at once: what the system has at hand is taken on the spot, the
// rest is sent to it together (page_ring.h) or, where it takes none, fetched by a few threads. It
// knows bytes and descriptors, and not what they mean.
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
class ReadPool;
class ReadRing;

struct ReadJob;
// Throws ReadError if the job failed.
void check_read(const ReadJob& job);

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

  // What is read for a job: with `skip` bytes before those that are wanted.
  struct Extent {
    uint64_t offset;
    uint64_t length;
    uint64_t skip;
  };

  uint64_t room(uint32_t length) const;
  Extent extent(const ReadJob& job) const;
  int descriptor() const { return descriptor_; }
  // Whether the job could be done without waiting; it is done then.
  bool at_once(ReadJob& job) const;
  // Waits for it.
  void read(ReadJob& job) const;
  // The system was sent the job and says how many bytes it read, or an error below 0. One that is
  // not done is read again, which tells why.
  void finish(ReadJob& job, int64_t result) const;

  const std::string& path() const { return path_; }
  uint64_t reads() const { return reads_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t waited() const { return waited_; }

 private:
  void count(uint64_t bytes, bool waited) const;

  int descriptor_;
  uint64_t body_offset_;
  std::string path_;
  bool direct_;
  mutable std::atomic<bool> asks_first_{true};  // whether reads that do not wait are known here
  mutable std::atomic<uint64_t> reads_{0}, bytes_{0}, waited_{0};
};

// Asks for what is at hand until that was in vain a few times in a row: the rest is sent unasked.
class AskFirst {
 public:
  bool at_once(ReadJob& job) {
    if (in_vain_ >= kInVain) return false;
    const bool done = job.file->at_once(job);
    in_vain_ = done ? 0 : in_vain_ + 1;
    return done;
  }

 private:
  static constexpr uint32_t kInVain = 3;
  uint32_t in_vain_ = 0;
};

// Jobs of one thread that are under way, by a ring of the system's or by threads of the pool.
class Arrivals {
 public:
  explicit Arrivals(ReadPool& pool);
  ~Arrivals();  // waits for all of them: their buffers may go after this
  Arrivals(const Arrivals&) = delete;
  Arrivals& operator=(const Arrivals&) = delete;

  // The job must be there until it has arrived.
  void send(ReadJob* job);
  uint32_t under_way() const { return under_way_; }
  // Waits for some of those under way: half of them, or one where threads do them.
  void wait(std::vector<ReadJob*>& arrived);

 private:
  friend class ReadPool;
  void arrive(ReadJob* job);  // by the pool's threads

  ReadPool& pool_;
  std::unique_ptr<ReadRing> ring_;
  bool asked_ = false;  // for a ring
  std::mutex guard_;
  std::condition_variable more_;
  std::vector<ReadJob*> done_;
  uint32_t under_way_ = 0;
};

// Who does jobs that wait: up to `most` rings, each of the search that has it, where `rings` may be
// had at all; else up to `most` threads. Both are begun as they are needed.
class ReadPool {
 public:
  explicit ReadPool(uint32_t most, bool rings = true);
  ~ReadPool();
  ReadPool(const ReadPool&) = delete;
  ReadPool& operator=(const ReadPool&) = delete;

  // Whether jobs have gone through rings so far.
  bool has_rings() const;

 private:
  friend class Arrivals;
  struct State;
  static void work(State& state);
  void submit(ReadJob* job);  // to a thread
  std::unique_ptr<ReadRing> take_ring();  // null: none is to be had
  void give_back(std::unique_ptr<ReadRing> ring);

  std::unique_ptr<State> state_;
  const uint32_t most_;
  const int64_t owner_;  // the process whose threads and rings these are
};

// Does all jobs, side by side, and waits, also for what was under way, of which `other` is told.
// Throws ReadError; then too no job is under way any more.
template <class Other>
void read_all(Arrivals& arrivals, std::vector<ReadJob>& jobs, size_t count, const Other& other) {
  std::vector<ReadJob*> arrived;
  const struct Waiting {  // whatever happens: the buffers of the jobs may go after this
    Arrivals& arrivals;
    std::vector<ReadJob*>& arrived;
    ~Waiting() {
      while (arrivals.under_way() > 0) arrivals.wait(arrived);
    }
  } waiting = {arrivals, arrived};
  AskFirst ask;
  for (size_t i = 0; i < count; ++i)
    if (!ask.at_once(jobs[i])) arrivals.send(&jobs[i]);
  while (arrivals.under_way() > 0) {
    arrivals.wait(arrived);
    for (ReadJob* job : arrived)
      if (job < jobs.data() || job >= jobs.data() + count) other(job);
  }
  for (size_t i = 0; i < count; ++i) check_read(jobs[i]);
}

}  // namespace memdb
