// Best-first walks over a graph of slots, by estimates from row-major codes: what search and
// building share. Where neighbours are read from is the caller's: any slot they name is checked
// against the rows here, so that a damaged graph leads nowhere, and never outside.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels.h"
#include "search.h"

namespace memdb {

constexpr uint32_t kMostDegree = 64;

inline void prefetch(const void* at) {
#if defined(__GNUC__)
  __builtin_prefetch(at);
#else
  (void)at;
#endif
}

// Sign codes row after row: `bytes` of code, then offset and slope as in kernels.h.
struct RowCodes {
  const uint8_t* first;
  uint64_t count;
  uint32_t dim;
  uint32_t bytes;  // of a code, a multiple of 8

  uint64_t stride() const { return bytes + 4ULL; }
  const uint8_t* row(uint64_t slot) const { return first + slot * stride(); }
};

// A query in planes of bits: coordinate i is step * (2 u - 31), bit b of u in plane b. Returns the
// step. Beyond three times the mean square it is cut off, where there are dimensions enough.
float query_planes(const float* query, uint32_t dim, uint32_t words, uint64_t* planes);

// Slots seen: open addressing, grown at half load.
class Visited {
 public:
  void clear(uint32_t expected);
  // Whether the slot was not in it.
  bool insert(uint32_t slot) {
    uint64_t at = (slot * 0x9E3779B97F4A7C15ULL) >> shift_;
    while (table_[at] != kEmpty) {
      if (table_[at] == slot) return false;
      at = (at + 1) & (table_.size() - 1);
    }
    table_[at] = slot;
    if (2 * ++count_ > table_.size()) grow();
    return true;
  }
  bool has(uint32_t slot) const {
    uint64_t at = (slot * 0x9E3779B97F4A7C15ULL) >> shift_;
    while (table_[at] != kEmpty && table_[at] != slot) at = (at + 1) & (table_.size() - 1);
    return table_[at] == slot;
  }

 private:
  static constexpr uint32_t kEmpty = 0xffffffffu;
  void grow();
  std::vector<uint32_t> table_;
  uint64_t count_ = 0;
  uint32_t shift_ = 64;
};

// The best of what was seen, ascending; an entry is looked at once.
class Frontier {
 public:
  void clear(uint32_t limit) {
    limit_ = limit;
    cursor_ = 0;
    found_.clear();
  }
  float threshold() const {
    return found_.size() < limit_ ? std::numeric_limits<float>::infinity() : found_.back().key;
  }
  void insert(const Candidate& one) {
    if (found_.size() == limit_) {
      if (!(one < found_.back())) return;
      found_.pop_back();
      open_.pop_back();
    }
    const auto at = std::upper_bound(found_.begin(), found_.end(), one);
    const size_t place = static_cast<size_t>(at - found_.begin());
    found_.insert(at, one);
    open_.insert(open_.begin() + static_cast<std::ptrdiff_t>(place), 1);
    cursor_ = std::min(cursor_, place);
  }
  // The nearest that was not looked at yet, which is from now on; false where there is none.
  bool next(Candidate& one) {
    while (cursor_ < found_.size() && !open_[cursor_]) ++cursor_;
    if (cursor_ == found_.size()) return false;
    open_[cursor_] = 0;
    one = found_[cursor_];
    return true;
  }
  // Calls `visit` for the slots that `next` would give first, up to `most`.
  template <class Visit>
  void peek(uint32_t most, const Visit& visit) const {
    for (size_t at = cursor_; at < found_.size() && most > 0; ++at) {
      if (!open_[at]) continue;
      visit(found_[at].slot);
      --most;
    }
  }
  void reset() {
    open_.clear();
    found_.clear();
  }
  std::vector<Candidate>& found() { return found_; }

 private:
  uint32_t limit_ = 0;
  size_t cursor_ = 0;
  std::vector<Candidate> found_;
  std::vector<uint8_t> open_;
};

// One query's estimates.
class Estimator {
 public:
  Estimator(const Kernels& kernels, const RowCodes& codes) : kernels_(kernels), codes_(codes) {}

  // `query` is rotated and centred.
  void prepare(const float* query) {
    planes_.resize(static_cast<size_t>(codes_.bytes / 8) * kPlanes);
    step_ = query_planes(query, codes_.dim, codes_.bytes / 8, planes_.data());
  }

  // Keys of up to kMostDegree rows, at any address.
  void keys(const uint8_t* const* rows, uint32_t count, float* keys) const {
    uint32_t sums[kMostDegree];
    kernels_.weigh(rows, count, planes_.data(), codes_.bytes / 8, sums);
    const int32_t most = static_cast<int32_t>(((1u << kPlanes) - 1) * codes_.dim);
    for (uint32_t i = 0; i < count; ++i) {
      const float dot = step_ * static_cast<float>(most - 2 * static_cast<int32_t>(sums[i]));
      const float key = offset(rows[i]) + slope(rows[i]) * dot;
      // A damaged factor: let the record decide.
      keys[i] = std::isnan(key) ? -std::numeric_limits<float>::infinity() : key;
    }
  }

  uint32_t factors(const uint8_t* row) const {
    uint32_t word;
    std::memcpy(&word, row + codes_.bytes, 4);
    return word;
  }
  float offset(const uint8_t* row) const { return as_float(factors(row) << 16); }
  float slope(const uint8_t* row) const { return as_float(factors(row) & 0xffff0000u); }
  const RowCodes& codes() const { return codes_; }

 private:
  static float as_float(uint32_t word) {
    float number;
    std::memcpy(&number, &word, 4);
    return number;
  }
  const Kernels& kernels_;
  const RowCodes& codes_;
  std::vector<uint64_t> planes_;
  float step_ = 0.0f;
};

// The entry points nearest to a query, out of (count) rows that lie side by side.
struct Entries {
  const uint32_t* slots;
  const uint8_t* rows;  // (count, stride) copies of their codes
  uint32_t count;
};

// What a thread keeps from walk to walk.
struct WalkScratch {
  Visited visited;
  Frontier frontier;
  std::vector<Candidate> starts;
  std::vector<Candidate> open;    // of a filtered walk: a heap of what is not looked at
  std::vector<Candidate> inside;  // and the best that are allowed, a heap
  uint64_t hops = 0;
  uint64_t estimated = 0;
};

constexpr uint32_t kStarts = 4;
constexpr uint32_t kAhead = 3;  // nodes of a list whose neighbours are fetched before their turn

// Up to kStarts of the entries nearest to the query, ascending.
void nearest_entries(const Estimator& estimator, const Entries& entries,
                     std::vector<Candidate>& starts);

// Rows of one node's neighbours that were not seen before, with their keys.
struct Step {
  uint32_t slots[kMostDegree];
  float keys[kMostDegree];
  uint32_t count = 0;
};

template <class Neighbours>
void look_at(const Estimator& estimator, const Neighbours& neighbours, uint32_t slot,
             WalkScratch& scratch, Step& step) {
  const RowCodes& codes = estimator.codes();
  uint32_t named[kMostDegree];
  const uint8_t* rows[kMostDegree];
  const uint32_t degree = neighbours(slot, named);
  step.count = 0;
  for (uint32_t i = 0; i < degree; ++i) {
    if (named[i] >= codes.count || !scratch.visited.insert(named[i])) continue;
    const uint8_t* row = codes.row(named[i]);
    prefetch(row);
    prefetch(row + codes.bytes);
    rows[step.count] = row;
    step.slots[step.count++] = named[i];
  }
  ++scratch.hops;
  scratch.estimated += step.count;
  estimator.keys(rows, step.count, step.keys);
}

// Fills the scratch's frontier with the `breadth` nearest that the walk finds, ascending.
// `usable(slot)` says whether a row whose factors are zero counts.
template <class Neighbours, class Usable, class Ahead>
void walk(const Estimator& estimator, const Neighbours& neighbours, const Usable& usable,
          const Ahead& ahead, const Entries& entries, uint32_t breadth, WalkScratch& scratch) {
  Frontier& frontier = scratch.frontier;
  frontier.clear(breadth);
  frontier.reset();
  scratch.visited.clear(breadth * 16);
  nearest_entries(estimator, entries, scratch.starts);
  for (const Candidate& start : scratch.starts)
    if (start.slot < estimator.codes().count && scratch.visited.insert(start.slot))
      frontier.insert(start);
  Candidate here;
  Step step;
  while (frontier.next(here)) {
    look_at(estimator, neighbours, here.slot, scratch, step);
    const float limit = frontier.threshold();
    for (uint32_t i = 0; i < step.count; ++i)
      if (!(step.keys[i] > limit) && usable(step.slots[i]))
        frontier.insert({step.keys[i], step.slots[i]});
    frontier.peek(kAhead, ahead);
  }
}

}  // namespace memdb
