#include "page_ring.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#endif

namespace memdb {

#if defined(__linux__) && defined(__NR_io_uring_setup)

namespace {

// As in linux/io_uring.h, which machines that compile this may lack.
struct RingOffsets {
  uint32_t head, tail, mask, entries, flags, dropped, array, reserved;
  uint64_t address;
};
struct DoneOffsets {
  uint32_t head, tail, mask, entries, overflow, cqes, flags, reserved;
  uint64_t address;
};
struct RingParams {
  uint32_t sent_entries, done_entries, flags, thread_cpu, thread_idle, features, other, reserved[3];
  RingOffsets sent;
  DoneOffsets done;
};
struct SentEntry {
  uint8_t opcode, flags;
  uint16_t priority;
  int32_t descriptor;
  uint64_t offset, address;
  uint32_t length, read_flags;
  uint64_t user_data, rest[3];
};
struct DoneEntry {
  uint64_t user_data;
  int32_t result;
  uint32_t flags;
};
static_assert(sizeof(RingParams) == 120 && sizeof(SentEntry) == 64 && sizeof(DoneEntry) == 16,
              "the layout is the kernel's");

constexpr uint8_t kRead = 22;             // IORING_OP_READ
constexpr unsigned kGetEvents = 1;        // IORING_ENTER_GETEVENTS
constexpr off_t kRingsAt = 0;             // IORING_OFF_SQ_RING
constexpr off_t kEntriesAt = 0x10000000;  // IORING_OFF_SQES
constexpr uint32_t kOneMapping = 1;       // IORING_FEAT_SINGLE_MMAP: Linux 5.4

uint32_t* word(uint8_t* base, uint32_t offset) {
  return reinterpret_cast<uint32_t*>(base + offset);
}

}  // namespace

struct ReadRing::Shared {
  int descriptor = -1;
  uint8_t* rings = nullptr;
  size_t rings_bytes = 0;
  SentEntry* entries = nullptr;
  size_t entries_bytes = 0;
  uint32_t *sent_tail = nullptr, *sent_array = nullptr, sent_mask = 0;
  uint32_t *done_head = nullptr, *done_tail = nullptr, done_mask = 0;
  DoneEntry* done = nullptr;

  bool open() {
    RingParams params;
    std::memset(&params, 0, sizeof(params));
    descriptor = static_cast<int>(syscall(__NR_io_uring_setup, kRoom, &params));
    if (descriptor < 0 || !(params.features & kOneMapping)) return false;
    rings_bytes = std::max<size_t>(params.sent.array + params.sent_entries * sizeof(uint32_t),
                                   params.done.cqes + params.done_entries * sizeof(DoneEntry));
    entries_bytes = params.sent_entries * sizeof(SentEntry);
    rings = static_cast<uint8_t*>(map(rings_bytes, kRingsAt));
    entries = static_cast<SentEntry*>(map(entries_bytes, kEntriesAt));
    if (rings == nullptr || entries == nullptr) return false;
    sent_tail = word(rings, params.sent.tail);
    sent_array = word(rings, params.sent.array);
    sent_mask = *word(rings, params.sent.mask);
    done_head = word(rings, params.done.head);
    done_tail = word(rings, params.done.tail);
    done_mask = *word(rings, params.done.mask);
    done = reinterpret_cast<DoneEntry*>(rings + params.done.cqes);
    return syscall(__NR_io_uring_enter, descriptor, 0, 0, 0, nullptr, 0UL) == 0;  // allowed, too
  }
  ~Shared() {
    if (rings != nullptr) munmap(rings, rings_bytes);
    if (entries != nullptr) munmap(entries, entries_bytes);
    if (descriptor >= 0) close(descriptor);
  }

 private:
  void* map(size_t bytes, off_t offset) const {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, offset);
    return at == MAP_FAILED ? nullptr : at;
  }
};

std::unique_ptr<ReadRing> ReadRing::make() {
  std::unique_ptr<Shared> shared(new Shared);
  if (!shared->open()) return nullptr;
  return std::unique_ptr<ReadRing>(new ReadRing(std::move(shared)));
}

void ReadRing::add(ReadJob* job) {
  const uint32_t tail = *shared_->sent_tail, at = tail & shared_->sent_mask;
  const FileReader::Extent wanted = job->file->extent(*job);
  SentEntry& entry = shared_->entries[at];
  std::memset(&entry, 0, sizeof(entry));
  entry.opcode = kRead;
  entry.descriptor = job->file->descriptor();
  entry.offset = wanted.offset;
  entry.address = reinterpret_cast<uint64_t>(job->buffer);
  entry.length = static_cast<uint32_t>(wanted.length);
  entry.user_data = reinterpret_cast<uint64_t>(job);
  shared_->sent_array[at] = at;
  __atomic_store_n(shared_->sent_tail, tail + 1, __ATOMIC_RELEASE);
  ++under_way_;
  ++unsent_;
}

void ReadRing::take(std::vector<ReadJob*>& arrived) {
  uint32_t head = *shared_->done_head;
  const uint32_t tail = __atomic_load_n(shared_->done_tail, __ATOMIC_ACQUIRE);
  for (; head != tail; ++head, --under_way_) {
    const DoneEntry& entry = shared_->done[head & shared_->done_mask];
    ReadJob* job = reinterpret_cast<ReadJob*>(entry.user_data);
    job->file->finish(*job, entry.result);
    arrived.push_back(job);
  }
  __atomic_store_n(shared_->done_head, head, __ATOMIC_RELEASE);
}

void ReadRing::wait(uint32_t least, std::vector<ReadJob*>& arrived) {
  const size_t enough = arrived.size() + std::min(least, under_way_);
  take(arrived);
  while (unsent_ > 0 || arrived.size() < enough) {
    const unsigned missing =
        arrived.size() < enough ? static_cast<unsigned>(enough - arrived.size()) : 0;
    const long sent = syscall(__NR_io_uring_enter, shared_->descriptor, unsent_, missing,
                              kGetEvents, nullptr, 0UL);
    if (sent > 0) unsent_ -= static_cast<uint32_t>(sent);
    // What is sent arrives, whatever this call says: a signal came, or memory was short.
    if (sent < 0 && errno != EINTR) std::this_thread::yield();
    take(arrived);
  }
}

#else

struct ReadRing::Shared {};
std::unique_ptr<ReadRing> ReadRing::make() { return nullptr; }
void ReadRing::add(ReadJob*) {}
void ReadRing::take(std::vector<ReadJob*>&) {}
void ReadRing::wait(uint32_t, std::vector<ReadJob*>&) {}

#endif

ReadRing::ReadRing(std::unique_ptr<Shared> shared) : shared_(std::move(shared)) {}

ReadRing::~ReadRing() {  // the kernel writes into the buffers of jobs until they have arrived
  std::vector<ReadJob*> arrived;
  wait(under_way_, arrived);
}

}  // namespace memdb
