// What searches by a graph have in common, wherever its pages and the records come from: the query
// as codes and records take it, the scoring of a list, the threads of several queries.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "graph_walk.h"
#include "kernels.h"
#include "rotation.h"
#include "score.h"
#include "search.h"

namespace memdb {

constexpr uint32_t kScoredAtOnce = 16;

struct Scratch {
  WalkScratch walk;
  std::vector<float> rotated, residual;
  std::vector<Candidate> best;
};

// A query as the codes and the records take it.
struct Prepared {
  const float* scored;   // what the records are compared with
  float to_distance;     // key + to_distance estimates the distance
  float doubt;           // times |slope|: how far the estimate may be off
};

template <class Request>
Prepared prepare(const Request& request, uint32_t at, Estimator& estimator, Scratch& scratch) {
  const Records& records = *request.records;
  const uint32_t dim = records.dim;
  const float* given = request.queries + static_cast<uint64_t>(at) * dim;
  scratch.rotated.assign(given, given + dim);
  rotate(scratch.rotated.data(), request.signs, dim);
  scratch.residual.resize(dim);
  double product = 0.0, square = 0.0;
  for (uint32_t i = 0; i < dim; ++i) {
    const float gap = scratch.rotated[i] - request.centre[i];
    scratch.residual[i] = gap;
    product += static_cast<double>(request.centre[i]) * scratch.rotated[i];
    square += static_cast<double>(gap) * gap;
  }
  estimator.prepare(scratch.residual.data());
  const bool as_given = records.precision == Precision::kFloat16;
  Prepared prepared = {as_given ? given : scratch.rotated.data(), static_cast<float>(-product),
                       kDoubt * kCodeError * static_cast<float>(std::sqrt(square))};
  if (records.metric == Metric::kCosine) prepared.to_distance += 1.0f;
  if (records.metric == Metric::kSquaredL2) prepared.to_distance = static_cast<float>(square);
  return prepared;
}

// Scores the ascending `list` from its records, but for those whose estimate is too far off to
// matter; leaves the best k in scratch.best, ascending.
inline int64_t refine(const Kernels& kernels, const Records& records, const Estimator& estimator,
               const Prepared& prepared, const std::vector<Candidate>& list, uint32_t k,
               Scratch& scratch, uint64_t& scored) {
  Scorer scorer(kernels, records, prepared.scored);
  std::vector<Candidate>& best = scratch.best;
  best.clear();
  uint32_t slots[kScoredAtOnce];
  float distances[kScoredAtOnce];
  for (size_t next = 0; next < list.size();) {
    uint32_t count = 0;
    const float limit =
        best.size() < k ? std::numeric_limits<float>::infinity() : best.back().key;
    for (; next < list.size() && count < kScoredAtOnce; ++next) {
      const uint8_t* row = estimator.codes().row(list[next].slot);
      const float doubt = prepared.doubt * std::fabs(estimator.slope(row));
      if (list[next].key + prepared.to_distance - doubt > limit) continue;
      slots[count++] = list[next].slot;
    }
    const int64_t bad = rescore(kernels, records, scorer, slots, count, distances);
    if (bad != kAllGood) return bad;
    scored += count;
    for (uint32_t i = 0; i < count; ++i) {
      const Candidate one = {distances[i], slots[i]};
      if (best.size() == k) {
        if (!(one < best.back())) continue;
        best.pop_back();
      }
      best.insert(std::upper_bound(best.begin(), best.end(), one), one);
    }
  }
  return kAllGood;
}

inline bool is_in(const Allowed& allowed, uint32_t slot) {
  return slot / 8 < allowed.bytes && ((allowed.bits[slot / 8] >> (slot % 8)) & 1);
}

inline bool farther(const Candidate& a, const Candidate& b) { return b < a; }

struct Counted {
  uint64_t hops = 0, estimated = 0, scored = 0;
};

// Runs `one(at, scratch)` for all queries on up to `threads` threads.
template <class One>
int64_t on_threads(uint32_t query_count, uint32_t threads, const One& one) {
  std::atomic<uint32_t> next{0};
  std::atomic<int64_t> first_bad{kAllGood};
  std::exception_ptr failure;
  std::mutex failure_guard;
  const auto work = [&]() {
    try {
      Scratch scratch;
      for (uint32_t at; first_bad == kAllGood && (at = next++) < query_count;) {
        const int64_t bad = one(at, scratch);
        if (bad != kAllGood) first_bad = bad;
      }
    } catch (...) {  // no memory: a thread must not end the process
      const std::lock_guard<std::mutex> guard(failure_guard);
      failure = std::current_exception();
      next = query_count;
    }
  };
  std::vector<std::thread> helpers;
  for (uint32_t i = 1; i < std::min(threads, query_count); ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
  return first_bad;
}

}  // namespace memdb
