// Pages of a file that were read and found sound, up to a number of bytes. It knows numbers of
// pages and bytes; who changes a page says so with `drop`.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace memdb {

class PageCache {
 public:
  // At least one page is kept, whatever `most_bytes` is; the tables count too.
  PageCache(uint32_t page_bytes, uint64_t most_bytes);

  // Copies a part of a page; false where the page is not there.
  bool copy(uint32_t page, uint32_t offset, uint32_t length, uint8_t* into);

  // Changes with every `drop` and `clear`. What was read before may be of an older state.
  uint64_t epoch() const { return epoch_.load(std::memory_order_acquire); }
  // Keeps a page that was read while this was the epoch; an older one is let go.
  void put(uint32_t page, const uint8_t* bytes, uint64_t epoch);

  void drop(const uint32_t* pages, uint64_t count);
  void clear();

  uint64_t bytes() const { return kept_.load(std::memory_order_relaxed) * frame_bytes(); }
  uint64_t most_bytes() const { return frames_ * frame_bytes(); }
  uint64_t hits() const { return hits_.load(std::memory_order_relaxed); }
  uint64_t misses() const { return misses_.load(std::memory_order_relaxed); }

 private:
  struct Frame {
    uint32_t page = 0;
    bool used = false;    // holds a page
    bool recent = false;  // was asked for since the hand passed
    std::unique_ptr<uint8_t[]> bytes;
  };
  struct Shard {
    std::mutex guard;
    std::unordered_map<uint32_t, uint32_t> places;
    std::vector<Frame> frames;
    uint64_t most = 0;
    size_t hand = 0;
  };
  // A frame with its place in the table, as allocators round them.
  uint64_t frame_bytes() const { return page_bytes_ + 96; }
  Shard& shard_of(uint32_t page) {
    return shards_[(page * 0x9E3779B97F4A7C15ULL >> 40) % shards_.size()];
  }
  Frame& frame_for(Shard& shard);

  const uint32_t page_bytes_;
  uint64_t frames_;
  std::vector<Shard> shards_;
  std::atomic<uint64_t> epoch_{0}, kept_{0}, hits_{0}, misses_{0};
};

}  // namespace memdb
