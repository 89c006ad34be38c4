#include "search.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>

#include "codes.h"
#include "rotation.h"

namespace memdb {
namespace {

constexpr uint32_t kChunkBlocks = 128;  // blocks estimated under one threshold
static_assert(kGroupBlocks % kChunkBlocks == 0, "a chunk lies within one group");

// Keeps the `keep` smallest candidates offered, selecting only when twice as many have come.
class Shortlist {
 public:
  Shortlist(uint32_t keep, std::vector<Candidate>& found) : keep_(keep), found_(found) {
    found_.clear();
    found_.reserve(2 * static_cast<size_t>(keep) + kChunkBlocks * kBlockRows);
  }

  // NaN while fewer than `keep` are known: everything passes.
  float threshold() const { return threshold_; }

  void offer(float key, uint32_t slot) {
    // A key that is not a number comes from a damaged factor: let the record decide.
    if (std::isnan(key)) key = -std::numeric_limits<float>::infinity();
    found_.push_back({key, slot});
  }

  void settle(bool last) {
    if (found_.size() < 2 * static_cast<size_t>(keep_) && !(last && found_.size() > keep_)) return;
    std::nth_element(found_.begin(), found_.begin() + (keep_ - 1), found_.end());
    found_.resize(keep_);
    threshold_ = found_[keep_ - 1].key;
  }

 private:
  uint32_t keep_;
  std::vector<Candidate>& found_;
  float threshold_ = std::numeric_limits<float>::quiet_NaN();
};

uint64_t eight_bytes(const uint8_t* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, 8);
  return word;
}

uint32_t lowest_bit(uint32_t mask) {
  uint32_t bit = 0;
  while (!((mask >> bit) & 1)) ++bit;
  return bit;
}

}  // namespace

uint64_t group_bytes(uint32_t words) {
  return static_cast<uint64_t>(kGroupRows) * (8 * static_cast<uint64_t>(words) + 8);
}

void shortlist(const Kernels& kernels, const Codes& codes, const QueryPlanes& query,
               const uint8_t* allowed, uint64_t allowed_bytes, uint32_t keep,
               std::vector<Candidate>& found) {
  Shortlist best(keep, found);
  alignas(64) float keys[kChunkBlocks * kBlockRows];
  uint8_t masks[kChunkBlocks];
  uint8_t permitted[kGroupBlocks];
  uint16_t blocks[kChunkBlocks];
  const uint64_t bytes = group_bytes(codes.words);
  for (uint64_t group = 0; group * kGroupBlocks < allowed_bytes; ++group) {
    const uint64_t first_block = group * kGroupBlocks;
    const uint64_t here = std::min<uint64_t>(kGroupBlocks, allowed_bytes - first_block);
    std::memset(permitted, 0, sizeof(permitted));
    std::memcpy(permitted, allowed + first_block, here);
    const uint8_t* base = codes.groups + group * bytes;
    const auto* words = reinterpret_cast<const uint64_t*>(base);
    const auto* offsets = reinterpret_cast<const float*>(base + bytes - 8 * kGroupRows);
    const float* slopes = offsets + kGroupRows;
    uint32_t block = 0;
    while (block < here) {
      uint32_t count = 0;
      for (; count + 8 <= kChunkBlocks && block < here; block += 8) {
        if (eight_bytes(permitted + block) == 0) continue;
        for (uint32_t next = block; next < block + 8; ++next) {
          blocks[count] = static_cast<uint16_t>(next);
          count += permitted[next] != 0;
        }
      }
      std::memset(masks, 0, sizeof(masks));
      kernels.scan(words, offsets, slopes, permitted, blocks, count, query, best.threshold(), keys,
                   masks);
      for (uint32_t i = 0; i < count; ++i) {
        if (i % 8 == 0 && eight_bytes(masks + i) == 0) {
          i += 7;
          continue;
        }
        for (uint32_t mask = masks[i]; mask; mask &= mask - 1) {
          const uint32_t row = lowest_bit(mask);
          const uint64_t slot = (first_block + blocks[i]) * kBlockRows + row;
          best.offer(keys[i * kBlockRows + row], static_cast<uint32_t>(slot));
        }
      }
      best.settle(false);
    }
  }
  best.settle(true);
}

float distance(const Kernels& kernels, const Records& records, const float* query,
               const uint8_t* record) {
  float scale, norm;
  std::memcpy(&scale, record + 4, 4);
  std::memcpy(&norm, record + 8, 4);
  const uint8_t* payload = record + kRecordHead;
  const bool bytes = records.precision == Precision::kInt8;
  if (records.metric == Metric::kSquaredL2)
    return (bytes ? kernels.l2_8 : kernels.l2_16)(query, payload, scale, records.dim);
  const float dot = (bytes ? kernels.dot8 : kernels.dot16)(query, payload, records.dim);
  if (records.metric == Metric::kInnerProduct) return -(dot * scale);
  return norm > 0.0f ? 1.0f - dot * (scale / norm) : 1.0f;
}

int64_t rescore(const Kernels& kernels, const Records& records, const float* query,
                const uint32_t* slots, uint64_t count, float* out) {
  for (uint64_t i = 0; i < count; ++i) {
    if (slots[i] >= records.count) return slots[i];
    const uint8_t* record = records.first + slots[i] * records.size;
#if defined(__GNUC__)
    if (i + 2 < count && slots[i + 2] < records.count) {
      const uint8_t* ahead = records.first + slots[i + 2] * records.size;
      for (uint64_t line = 0; line < records.size; line += 64) __builtin_prefetch(ahead + line);
    }
#endif
    if (!record_holds(kernels, record, records.size, slots[i])) return slots[i];
    out[i] = distance(kernels, records, query, record);
  }
  return kAllGood;
}

namespace {

double product(const float* a, const float* b, uint32_t dim) {
  double sum = 0;
  for (uint32_t i = 0; i < dim; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

bool comfortable(double square) { return square > 1e-15 && square < 1e15; }

}  // namespace

void score_rows(const Kernels& kernels, Metric metric, const float* query, const float* rows,
                uint64_t count, uint32_t dim, float* out) {
  const double query_square = product(query, query, dim);
  for (uint64_t i = 0; i < count; ++i) {
    const float* row = rows + i * dim;
    const auto* payload = reinterpret_cast<const uint8_t*>(row);
    if (metric == Metric::kSquaredL2) {
      out[i] = kernels.l2_32(query, payload, 1.0f, dim);
      continue;
    }
    double dot = kernels.dot32(query, payload, dim);
    if (metric == Metric::kInnerProduct) {
      out[i] = static_cast<float>(-dot);
      continue;
    }
    double square = kernels.dot32(row, payload, dim);
    if (!comfortable(square) || !comfortable(query_square)) {
      dot = product(query, row, dim);
      square = product(row, row, dim);
    }
    const double lengths = std::sqrt(square) * std::sqrt(query_square);
    out[i] = lengths > 0 ? static_cast<float>(1.0 - dot / lengths) : 1.0f;
  }
}

namespace {

// What one thread reuses from query to query.
struct Scratch {
  std::vector<float> rotated, residual, distances;
  std::vector<uint64_t> planes;
  std::vector<Candidate> found;
  std::vector<uint32_t> slots;
};

int64_t score_all(const Kernels& kernels, const SearchRequest& request, const float* query,
                  Scratch& scratch) {
  Shortlist best(request.k, scratch.found);
  uint32_t slots[256] = {};
  float distances[256];
  uint32_t count = 0;
  const auto flush = [&]() -> int64_t {
    const int64_t bad = rescore(kernels, *request.records, query, slots, count, distances);
    if (bad != kAllGood) return bad;
    const float threshold = best.threshold();
    for (uint32_t i = 0; i < count; ++i)
      if (!(distances[i] >= threshold)) best.offer(distances[i], slots[i]);
    best.settle(false);
    count = 0;
    return kAllGood;
  };
  for (uint64_t byte = 0; byte < request.allowed_bytes; ++byte) {
    if (byte % 8 == 0 && byte + 8 <= request.allowed_bytes &&
        eight_bytes(request.allowed + byte) == 0) {
      byte += 7;
      continue;
    }
    for (uint32_t mask = request.allowed[byte]; mask; mask &= mask - 1) {
      slots[count++] = static_cast<uint32_t>(byte * 8 + lowest_bit(mask));
      if (count == 256) {
        const int64_t bad = flush();
        if (bad != kAllGood) return bad;
      }
    }
  }
  const int64_t bad = flush();
  best.settle(true);
  return bad;
}

int64_t search_one(const Kernels& kernels, const SearchRequest& request, uint32_t at,
                   Scratch& scratch) {
  const Records& records = *request.records;
  const uint32_t dim = records.dim;
  const float* given = request.queries + static_cast<uint64_t>(at) * dim;
  scratch.rotated.assign(given, given + dim);
  if (request.codes || records.precision == Precision::kInt8)
    rotate(scratch.rotated.data(), request.signs, dim);
  const float* query =
      records.precision == Precision::kInt8 ? scratch.rotated.data() : given;
  if (!request.codes) {
    const int64_t bad = score_all(kernels, request, query, scratch);
    if (bad != kAllGood) return bad;
  } else {
    const uint32_t words = request.codes->words;
    scratch.residual.resize(dim);
    for (uint32_t i = 0; i < dim; ++i)
      scratch.residual[i] = scratch.rotated[i] - request.centre[i];
    scratch.planes.resize(static_cast<size_t>(kQueryBits) * words);
    const float delta =
        quantise_query(scratch.residual.data(), dim, words, scratch.planes.data());
    const QueryPlanes planes = {scratch.planes.data(), words,
                                delta * (15.0f * static_cast<float>(dim)), -2.0f * delta};
    shortlist(kernels, *request.codes, planes, request.allowed, request.allowed_bytes,
              request.keep, scratch.found);
    const size_t count = scratch.found.size();
    scratch.slots.resize(count);
    scratch.distances.resize(count);
    // In slot order the records are read front to back.
    for (size_t i = 0; i < count; ++i) scratch.slots[i] = scratch.found[i].slot;
    std::sort(scratch.slots.begin(), scratch.slots.end());
    const int64_t bad = rescore(kernels, records, query, scratch.slots.data(), count,
                                scratch.distances.data());
    if (bad != kAllGood) return bad;
    for (size_t i = 0; i < count; ++i)
      scratch.found[i] = {scratch.distances[i], scratch.slots[i]};
  }
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
