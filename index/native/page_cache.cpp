#include "page_cache.h"

#include <algorithm>
#include <cstring>

namespace memdb {

namespace {

constexpr uint64_t kMostShards = 16;
constexpr uint64_t kLeastFrames = 64;  // of a shard, so that no shard is much fuller than others

}  // namespace

PageCache::PageCache(uint32_t page_bytes, uint64_t most_bytes)
    : page_bytes_(page_bytes),
      frames_(std::max<uint64_t>(1, most_bytes / (page_bytes + 96))),
      shards_(std::max<uint64_t>(1, std::min(kMostShards, frames_ / kLeastFrames))) {
  for (size_t i = 0; i < shards_.size(); ++i)
    shards_[i].most = frames_ / shards_.size() + (i < frames_ % shards_.size());
}

bool PageCache::copy(uint32_t page, uint32_t offset, uint32_t length, uint8_t* into) {
  Shard& shard = shard_of(page);
  {
    const std::lock_guard<std::mutex> lock(shard.guard);
    const auto found = shard.places.find(page);
    if (found != shard.places.end()) {
      Frame& frame = shard.frames[found->second];
      frame.recent = true;
      std::memcpy(into, frame.bytes.get() + offset, length);
      hits_.fetch_add(1, std::memory_order_relaxed);
      return true;
    }
  }
  misses_.fetch_add(1, std::memory_order_relaxed);
  return false;
}

// A frame to fill: a new one, or the next that was not asked for lately.
PageCache::Frame& PageCache::frame_for(Shard& shard) {
  if (shard.frames.size() < shard.most) {
    shard.frames.emplace_back();
    shard.frames.back().bytes.reset(new uint8_t[page_bytes_]);
    kept_.fetch_add(1, std::memory_order_relaxed);
    return shard.frames.back();
  }
  for (;;) {
    Frame& frame = shard.frames[shard.hand];
    shard.hand = (shard.hand + 1) % shard.frames.size();
    if (frame.used && frame.recent) {
      frame.recent = false;
      continue;
    }
    if (frame.used) shard.places.erase(frame.page);
    return frame;
  }
}

void PageCache::put(uint32_t page, const uint8_t* bytes, uint64_t epoch) {
  Shard& shard = shard_of(page);
  const std::lock_guard<std::mutex> lock(shard.guard);
  // Under the lock: a drop raises the epoch before it comes to this shard.
  if (epoch_.load(std::memory_order_acquire) != epoch || shard.places.count(page)) return;
  Frame& frame = frame_for(shard);
  frame.used = false;
  shard.places[page] = static_cast<uint32_t>(&frame - shard.frames.data());
  std::memcpy(frame.bytes.get(), bytes, page_bytes_);
  frame.page = page;
  frame.used = true;
  frame.recent = false;
}

void PageCache::drop(const uint32_t* pages, uint64_t count) {
  epoch_.fetch_add(1, std::memory_order_acq_rel);
  for (uint64_t i = 0; i < count; ++i) {
    Shard& shard = shard_of(pages[i]);
    const std::lock_guard<std::mutex> lock(shard.guard);
    const auto found = shard.places.find(pages[i]);
    if (found == shard.places.end()) continue;
    shard.frames[found->second].used = false;
    shard.places.erase(found);
  }
}

void PageCache::clear() {
  epoch_.fetch_add(1, std::memory_order_acq_rel);
  for (Shard& shard : shards_) {
    const std::lock_guard<std::mutex> lock(shard.guard);
    for (Frame& frame : shard.frames) frame.used = false;
    shard.places.clear();
  }
}

}  // namespace memdb
