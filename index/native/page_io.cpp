#include "page_io.h"

#include <algorithm>
#include <cerrno>
#include <new>

#include "page_ring.h"

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

FileReader::Extent FileReader::extent(const ReadJob& job) const {
  const uint64_t first = body_offset_ + job.offset;
  if (!direct_) return {first, job.length, 0};
  const uint64_t begin = first / kReadBlock * kReadBlock;
  const uint64_t end = (first + job.length + kReadBlock - 1) / kReadBlock * kReadBlock;
  return {begin, end - begin, first - begin};
}

uint64_t FileReader::room(uint32_t length) const {
  // Of whole blocks, the first of which may begin almost one before what is wanted.
  return direct_ ? (length + 2 * (kReadBlock - 1ULL)) / kReadBlock * kReadBlock : length;
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

void FileReader::finish(ReadJob& job, int64_t result) const {
  const Extent wanted = extent(job);
  if (result != static_cast<int64_t>(wanted.length)) return read(job);
  count(wanted.length, true);
  job.data = job.buffer + wanted.skip;
  job.got = job.length;
  job.error = 0;
}

Arrivals::Arrivals(ReadPool& pool) : pool_(pool) {}

Arrivals::~Arrivals() {
  std::vector<ReadJob*> arrived;
  while (under_way_ > 0) wait(arrived);
  if (ring_) pool_.give_back(std::move(ring_));
}

void Arrivals::send(ReadJob* job) {
  if (!asked_) {
    ring_ = pool_.take_ring();
    asked_ = true;
  }
  ++under_way_;
  if (!ring_) {
    job->arrivals = this;
    return pool_.submit(job);
  }
  if (ring_->under_way() == ReadRing::kRoom) ring_->wait(1, done_);
  ring_->add(job);
}

void Arrivals::wait(std::vector<ReadJob*>& arrived) {
  arrived.clear();
  if (ring_) {
    // One call for several reads: each costs the system less, and the disk works on the others.
    ring_->wait((ring_->under_way() + 1) / 2, done_);
    arrived.swap(done_);
  } else {
    std::unique_lock<std::mutex> lock(guard_);
    more_.wait(lock, [&]() { return !done_.empty(); });
    arrived.swap(done_);
  }
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
  std::vector<std::unique_ptr<ReadRing>> rings;  // nobody's at present
  uint32_t rings_made = 0;
  bool may_have_rings = true;
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

ReadPool::ReadPool(uint32_t most, bool rings)
    : state_(new State), most_(std::max(1u, most)), owner_(this_process()) {
  state_->may_have_rings = rings;
}

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

bool ReadPool::has_rings() const {
  const std::lock_guard<std::mutex> lock(state_->guard);
  return state_->rings_made > 0;
}

std::unique_ptr<ReadRing> ReadPool::take_ring() {
  if (this_process() != owner_) return nullptr;
  const std::lock_guard<std::mutex> lock(state_->guard);
  if (!state_->rings.empty()) {
    std::unique_ptr<ReadRing> ring = std::move(state_->rings.back());
    state_->rings.pop_back();
    return ring;
  }
  if (!state_->may_have_rings || state_->rings_made >= most_) return nullptr;
  std::unique_ptr<ReadRing> ring = ReadRing::make();
  if (ring)
    ++state_->rings_made;
  else
    state_->may_have_rings = false;  // what the system denies once it always does
  return ring;
}

void ReadPool::give_back(std::unique_ptr<ReadRing> ring) {
  const std::lock_guard<std::mutex> lock(state_->guard);
  state_->rings.push_back(std::move(ring));
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

}  // namespace memdb
