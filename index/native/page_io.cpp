#include "page_io.h"

#include <algorithm>
#include <cerrno>
#include <new>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace memdb {

Buffer aligned_buffer(uint64_t bytes) {
  const uint64_t whole = (bytes + kReadBlock - 1) / kReadBlock * kReadBlock;
#if defined(_WIN32)
  void* made = std::malloc(whole);
#else
  void* made = nullptr;
  if (posix_memalign(&made, kReadBlock, whole) != 0) made = nullptr;
#endif
  if (made == nullptr) throw std::bad_alloc();
  return Buffer(static_cast<uint8_t*>(made));
}

void check_read(const ReadJob& job) {
  if (job.error != 0) throw ReadError(job.error, job.file->path());
}

// What is read for a job: with `skip` bytes before those that are wanted.
struct FileReader::Extent {
  uint64_t offset;
  uint64_t length;
  uint64_t skip;
};

FileReader::Extent FileReader::extent(const ReadJob& job) const {
  const uint64_t first = body_offset_ + job.offset;
  if (!direct_) return {first, job.length, 0};
  const uint64_t begin = first / kReadBlock * kReadBlock;
  const uint64_t end = (first + job.length + kReadBlock - 1) / kReadBlock * kReadBlock;
  return {begin, end - begin, first - begin};
}

uint64_t FileReader::room(uint32_t length) const {
  return direct_ ? static_cast<uint64_t>(length) + 2 * kReadBlock : length;
}

void FileReader::count(uint64_t bytes, bool waited) const {
  reads_.fetch_add(1, std::memory_order_relaxed);
  bytes_.fetch_add(bytes, std::memory_order_relaxed);
  if (waited) waited_.fetch_add(1, std::memory_order_relaxed);
}

#if defined(_WIN32)

FileReader::FileReader(int, uint64_t, const std::string& path, bool) {
  throw ReadError(ENOSYS, path);
}
FileReader::~FileReader() {}
bool FileReader::at_once(ReadJob&) const { return false; }
void FileReader::read(ReadJob& job) const { job.error = ENOSYS; }

#else

FileReader::FileReader(int descriptor, uint64_t body_offset, const std::string& path, bool direct)
    : descriptor_(-1), body_offset_(body_offset), path_(path), direct_(direct) {
  int flags = O_RDONLY | O_CLOEXEC;
#if defined(__linux__)
  if (direct) flags |= O_DIRECT;
  const std::string same = "/proc/self/fd/" + std::to_string(descriptor);
  descriptor_ = open(same.c_str(), flags);
  if (descriptor_ < 0 && direct) throw ReadError(errno, path);
#else
  if (direct) throw ReadError(EINVAL, path);
#endif
  if (descriptor_ < 0) descriptor_ = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (descriptor_ < 0) throw ReadError(errno, path);
#if defined(POSIX_FADV_RANDOM)
  posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);  // advice: what it answers does not matter
#endif
#if !(defined(__linux__) && defined(SYS_preadv2))
  asks_first_ = false;
#endif
}

FileReader::~FileReader() {
  if (descriptor_ >= 0) close(descriptor_);
}

bool FileReader::at_once(ReadJob& job) const {
  job.file = this;
  if (direct_ || !asks_first_.load(std::memory_order_relaxed)) return false;
#if defined(__linux__) && defined(SYS_preadv2)
  constexpr int kNoWait = 8;  // RWF_NOWAIT, which older headers lack
  const Extent wanted = extent(job);
  iovec piece = {job.buffer, static_cast<size_t>(wanted.length)};
  const long got = syscall(SYS_preadv2, descriptor_, &piece, 1UL,
                           static_cast<unsigned long>(wanted.offset), 0UL, kNoWait);
  if (got == static_cast<long>(wanted.length)) {
    job.data = job.buffer;
    job.got = job.length;
    job.error = 0;
    count(static_cast<uint64_t>(got), false);
    return true;
  }
  if (got < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL))
    asks_first_.store(false, std::memory_order_relaxed);
#endif
  return false;
}

void FileReader::read(ReadJob& job) const {
  job.file = this;
  const Extent wanted = extent(job);
  uint64_t total = 0;
  job.error = 0;
  while (total < wanted.length) {
    iovec piece = {job.buffer + total, static_cast<size_t>(wanted.length - total)};
    const ssize_t got = preadv(descriptor_, &piece, 1, static_cast<off_t>(wanted.offset + total));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      job.error = errno;
      break;
    }
    if (got == 0) break;
    total += static_cast<uint64_t>(got);
    if (direct_ && total % kReadBlock != 0) break;  // the file's end: the next read would not align
  }
  count(total, true);
  job.data = job.buffer + wanted.skip;
  const uint64_t there = total > wanted.skip ? total - wanted.skip : 0;
  job.got = static_cast<uint32_t>(std::min<uint64_t>(there, job.length));
}

#endif

void Arrivals::wait(std::vector<ReadJob*>& arrived) {
  arrived.clear();
  std::unique_lock<std::mutex> lock(guard_);
  more_.wait(lock, [&]() { return !done_.empty(); });
  arrived.swap(done_);
  under_way_ -= static_cast<uint32_t>(arrived.size());
}

void Arrivals::arrive(ReadJob* job) {
  // Told under the lock: who waits may end this object as soon as it is free.
  const std::lock_guard<std::mutex> lock(guard_);
  done_.push_back(job);
  more_.notify_one();
}

struct ReadPool::State {
  std::mutex guard;
  std::condition_variable more;
  std::deque<ReadJob*> queue;
  std::vector<std::thread> threads;
  uint32_t idle = 0;
  bool ending = false;
};

namespace {

int64_t this_process() {
#if defined(_WIN32)
  return 0;
#else
  return static_cast<int64_t>(getpid());
#endif
}

}  // namespace

ReadPool::ReadPool(uint32_t most)
    : state_(new State), most_(std::max(1u, most)), owner_(this_process()) {}

ReadPool::~ReadPool() {
  if (this_process() != owner_) {  // a forked child has none of the threads, and may have a lock
    (void)state_.release();
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(state_->guard);
    state_->ending = true;
  }
  state_->more.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

void ReadPool::work(State& state) {
  std::unique_lock<std::mutex> lock(state.guard);
  for (;;) {
    ++state.idle;
    state.more.wait(lock, [&]() { return state.ending || !state.queue.empty(); });
    --state.idle;
    if (state.queue.empty()) return;
    ReadJob* job = state.queue.front();
    state.queue.pop_front();
    lock.unlock();
    job->file->read(*job);
    job->arrivals->arrive(job);
    lock.lock();
  }
}

void ReadPool::submit(ReadJob* job) {
  job->arrivals->sent();
  bool somebody = true;
  {
    const std::lock_guard<std::mutex> lock(state_->guard);
    state_->queue.push_back(job);
    if (state_->queue.size() > state_->idle && state_->threads.size() < most_) {
      try {
        state_->threads.emplace_back(work, std::ref(*state_));
      } catch (const std::system_error&) {
        somebody = !state_->threads.empty();
        if (!somebody) state_->queue.pop_back();
      }
    }
  }
  if (somebody) {
    state_->more.notify_one();
    return;
  }
  job->file->read(*job);  // not one thread could be begun: here, then
  job->arrivals->arrive(job);
}

void read_all(ReadPool& pool, std::vector<ReadJob>& jobs, size_t count) {
  Arrivals arrivals;
  for (size_t i = 0; i < count; ++i) {
    ReadJob& job = jobs[i];
    if (job.file->at_once(job)) continue;
    job.arrivals = &arrivals;
    pool.submit(&job);
  }
  std::vector<ReadJob*> arrived;
  arrived.reserve(count);
  while (arrivals.under_way() > 0) arrivals.wait(arrived);
  for (size_t i = 0; i < count; ++i) check_read(jobs[i]);
}

}  // namespace memdb
