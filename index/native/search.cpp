#include "search.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "codes.h"
#include "rotation.h"
#include "shortlist.h"

namespace memdb {
namespace {

constexpr uint32_t kChunkBlocks = 32;  // blocks estimated under one threshold
constexpr uint32_t kChunkSlots = 256;  // records scored between two looks at the shortlist
constexpr size_t kFirstScored = 128;  // of a shortlist, in any case
constexpr size_t kFirstPerResult = 4;
constexpr float kOffsetError = 1.0f / 256;  // of itself: eight bits of it are kept
constexpr float kRounding = 1e-4f;          // equal vectors have equal estimates but for that
static_assert(kGroupBlocks % kChunkBlocks == 0, "a chunk lies within one group");

uint32_t lowest_bit(uint64_t mask) {
#if defined(__GNUC__)
  return static_cast<uint32_t>(__builtin_ctzll(mask));
#else
  uint32_t bit = 0;
  while (!((mask >> bit) & 1)) ++bit;
  return bit;
#endif
}

// Calls `visit(slots, count)` for the allowed slots, ascending, some hundred at a time, until it
// returns other than kAllGood.
template <class Visit>
int64_t for_each_chunk(const Allowed& allowed, const Visit& visit) {
  uint32_t slots[kChunkSlots + 64];
  uint32_t count = 0;
  for (uint64_t byte = 0; byte < allowed.bytes; byte += 8) {
    uint64_t mask = 0;
    std::memcpy(&mask, allowed.bits + byte, std::min<uint64_t>(8, allowed.bytes - byte));
    for (; mask; mask &= mask - 1)
      slots[count++] = static_cast<uint32_t>(byte * 8 + lowest_bit(mask));
    if (count < kChunkSlots) continue;
    const int64_t bad = visit(slots, count);
    if (bad != kAllGood) return bad;
    count = 0;
  }
  return visit(slots, count);
}

}  // namespace

uint64_t group_bytes(uint32_t code_bytes) {
  return static_cast<uint64_t>(kGroupRows) * (static_cast<uint64_t>(code_bytes) + 4);
}

uint64_t shortlist(const Kernels& kernels, const Codes& codes, const QueryTables& query,
                   const Allowed& allowed, uint32_t keep, std::vector<Candidate>& found) {
  Shortlist best(keep, found);
  alignas(64) float keys[kChunkBlocks * kBlockRows];
  uint32_t masks[kChunkBlocks];
  uint32_t permitted[kGroupBlocks];
  uint16_t blocks[kChunkBlocks];
  const uint64_t bytes = group_bytes(codes.bytes);
  uint64_t looked_at = 0;
  for (uint64_t group = 0; group * kGroupRows < allowed.bytes * 8; ++group) {
    const uint64_t first_byte = group * (kGroupRows / 8);
    const uint64_t here = std::min<uint64_t>(kGroupRows / 8, allowed.bytes - first_byte);
    std::memset(permitted, 0, sizeof(permitted));
    std::memcpy(permitted, allowed.bits + first_byte, here);
    const uint8_t* base = codes.groups + group * bytes;
    const auto* factors = reinterpret_cast<const uint32_t*>(base + bytes - 4 * kGroupRows);
    for (uint32_t block = 0; block < kGroupBlocks;) {
      uint32_t count = 0;
      for (; count < kChunkBlocks && block < kGroupBlocks; ++block) {
        blocks[count] = static_cast<uint16_t>(block);
        count += permitted[block] != 0;
      }
      if (count == 0) continue;
      looked_at += count;
      kernels.scan(base, factors, permitted, blocks, count, query, best.threshold(), keys, masks);
      for (uint32_t i = 0; i < count; ++i) {
        const uint64_t first_slot = group * kGroupRows + blocks[i] * kBlockRows;
        for (uint32_t mask = masks[i]; mask; mask &= mask - 1) {
          const uint32_t row = lowest_bit(mask);
          best.offer(keys[i * kBlockRows + row], static_cast<uint32_t>(first_slot + row));
        }
      }
      best.settle(false);
    }
  }
  best.settle(true);
  return looked_at;
}

namespace {

// What one thread reuses from query to query.
struct Scratch {
  std::vector<float> rotated, residual, distances;
  std::vector<uint8_t> entries;
  std::vector<Candidate> found;
  std::vector<uint32_t> slots;
};

// The best `k` of all allowed records, each checked and scored.
int64_t score_all(const Kernels& kernels, const SearchRequest& request, Scorer& scorer,
                  std::vector<Candidate>& found) {
  Shortlist best(request.k, found);
  float distances[kChunkSlots + 64];
  const int64_t bad =
      for_each_chunk(request.allowed, [&](const uint32_t* slots, uint32_t count) {
        const int64_t broken =
            rescore(kernels, *request.records, scorer, slots, count, distances);
        if (broken != kAllGood) return broken;
        for (uint32_t i = 0; i < count; ++i)
          if (!(distances[i] >= best.threshold())) best.offer(distances[i], slots[i]);
        best.settle(false);
        return kAllGood;
      });
  best.settle(true);
  return bad;
}

// The best `keep` of all allowed records by rough distance; none is checked.
int64_t scan_records(const SearchRequest& request, Scorer& scorer,
                     std::vector<Candidate>& found) {
  Shortlist best(request.keep, found);
  const Records& records = *request.records;
  const int64_t bad =
      for_each_chunk(request.allowed, [&](const uint32_t* slots, uint32_t count) {
        const float limit = best.threshold();
        for (uint32_t i = 0; i < count; ++i) {
          if (slots[i] >= records.count) return static_cast<int64_t>(slots[i]);
          const float key = scorer.rough(records.first + slots[i] * records.size);
          if (!(key >= limit)) best.offer(key, slots[i]);
        }
        best.settle(false);
        return kAllGood;
      });
  best.settle(true);
  return bad;
}

// Replaces the keys of `found[from:to]` by the distances of checked records. In slot order these
// are read front to back.
int64_t refine(const Kernels& kernels, const Records& records, Scorer& scorer, Scratch& scratch,
               size_t from, size_t to) {
  const auto part = scratch.found.begin() + static_cast<ptrdiff_t>(from);
  const size_t count = to - from;
  scratch.slots.resize(count);
  scratch.distances.resize(count);
  std::sort(part, part + static_cast<ptrdiff_t>(count),
            [](const Candidate& a, const Candidate& b) { return a.slot < b.slot; });
  for (size_t i = 0; i < count; ++i) scratch.slots[i] = part[static_cast<ptrdiff_t>(i)].slot;
  const int64_t bad = rescore(kernels, records, scorer, scratch.slots.data(), count,
                              scratch.distances.data());
  if (bad != kAllGood) return bad;
  for (size_t i = 0; i < count; ++i) part[static_cast<ptrdiff_t>(i)].key = scratch.distances[i];
  return kAllGood;
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// How far estimates of one query may be off.
struct Doubts {
  float to_distance;  // key + to_distance estimates the distance
  float per_slope;
};

Doubts doubts_of(const SearchRequest& request, const Scratch& scratch) {
  double product = 0.0, square = 0.0;
  for (uint32_t i = 0; i < request.records->dim; ++i) {
    product += static_cast<double>(request.centre[i]) * scratch.rotated[i];
    square += static_cast<double>(scratch.residual[i]) * scratch.residual[i];
  }
  Doubts doubts = {static_cast<float>(-product),
                   kDoubt * kCodeError * static_cast<float>(std::sqrt(square))};
  if (request.records->metric == Metric::kCosine) doubts.to_distance += 1.0f;
  if (request.records->metric == Metric::kSquaredL2)
    doubts.to_distance = static_cast<float>(square);
  return doubts;
}

// Re-scores the best of a shortlist and, of the others, those that may still be among the `k`
// nearest: a far shorter list, for most questions. The rest leave it.
int64_t refine_near(const Kernels& kernels, const SearchRequest& request, const Doubts& doubts,
                    Scorer& scorer, Scratch& scratch) {
  const Records& records = *request.records;
  std::vector<Candidate>& found = scratch.found;
  const size_t first = std::max(kFirstScored, kFirstPerResult * request.k);
  if (found.size() <= first) return refine(kernels, records, scorer, scratch, 0, found.size());
  const auto rest = found.begin() + static_cast<ptrdiff_t>(first);
  std::nth_element(found.begin(), rest, found.end());
  const int64_t bad = refine(kernels, records, scorer, scratch, 0, first);
  if (bad != kAllGood) return bad;
  const auto last = scratch.distances.begin() + (request.k - 1);
  std::nth_element(scratch.distances.begin(), last, scratch.distances.end());
  const float limit =
      *last + kRounding * (std::fabs(*last) + std::fabs(doubts.to_distance));
  const uint64_t bytes = group_bytes(request.codes->bytes);
  const auto is_near = [&](const Candidate& one) {
    const uint8_t* end = request.codes->groups + (one.slot / kGroupRows + 1) * bytes;
    uint32_t word;
    std::memcpy(&word, end - 4 * (kGroupRows - one.slot % kGroupRows), sizeof(word));
    const float doubt = doubts.per_slope * std::fabs(float_of(word & 0xFFFF0000u)) +
                        kOffsetError * std::fabs(float_of(word << 16));
    return !(one.key + doubts.to_distance - doubt > limit);  // what is no number is near
  };
  found.erase(std::partition(rest, found.end(), is_near), found.end());
  return refine(kernels, records, scorer, scratch, first, found.size());
}

int64_t search_one(const Kernels& kernels, const SearchRequest& request, uint32_t at,
                   Scratch& scratch) {
  const Records& records = *request.records;
  const uint32_t dim = records.dim;
  const float* given = request.queries + static_cast<uint64_t>(at) * dim;
  const bool as_given =
      records.precision == Precision::kFloat16 || records.precision == Precision::kBits;
  scratch.rotated.assign(given, given + dim);
  if (request.codes || !as_given) rotate(scratch.rotated.data(), request.signs, dim);
  Scorer scorer(kernels, records, as_given ? given : scratch.rotated.data());
  int64_t bad = kAllGood;
  if (request.codes) {
    const uint32_t bytes = request.codes->bytes;
    scratch.residual.resize(dim);
    for (uint32_t i = 0; i < dim; ++i)
      scratch.residual[i] = scratch.rotated[i] - request.centre[i];
    scratch.entries.resize(static_cast<size_t>(bytes) * 2 * kTableEntries);
    const QueryTables tables =
        query_tables(scratch.residual.data(), dim, bytes, scratch.entries.data());
    shortlist(kernels, *request.codes, tables, request.allowed, request.keep, scratch.found);
    bad = refine_near(kernels, request, doubts_of(request, scratch), scorer, scratch);
  } else if (request.rough) {
    bad = scan_records(request, scorer, scratch.found);
    if (bad == kAllGood) bad = refine(kernels, records, scorer, scratch, 0, scratch.found.size());
  } else {
    bad = score_all(kernels, request, scorer, scratch.found);
  }
  if (bad != kAllGood) return bad;
  const uint32_t k = request.k;
  std::partial_sort(scratch.found.begin(), scratch.found.begin() + k, scratch.found.end());
  for (uint32_t i = 0; i < k; ++i) {
    request.slots[static_cast<uint64_t>(at) * k + i] = scratch.found[i].slot;
    request.distances[static_cast<uint64_t>(at) * k + i] = scratch.found[i].key;
  }
  return kAllGood;
}

}  // namespace

int64_t search(const Kernels& kernels, const SearchRequest& request) {
  std::atomic<uint32_t> next{0};
  std::atomic<int64_t> first_bad{kAllGood};
  std::exception_ptr failure;
  std::mutex failure_guard;
  const auto work = [&]() {
    try {
      Scratch scratch;
      for (uint32_t at; first_bad == kAllGood && (at = next++) < request.query_count;) {
        const int64_t bad = search_one(kernels, request, at, scratch);
        if (bad != kAllGood) first_bad = bad;
      }
    } catch (...) {  // no memory: a thread must not end the process
      const std::lock_guard<std::mutex> guard(failure_guard);
      failure = std::current_exception();
      next = request.query_count;
    }
  };
  std::vector<std::thread> helpers;
  const uint32_t threads = std::min(request.threads, request.query_count);
  for (uint32_t i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
  return first_bad;
}

}  // namespace memdb
