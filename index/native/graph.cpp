#include "graph.h"

#include <exception>
#include <mutex>
#include <thread>

#include "rotation.h"

namespace memdb {

bool page_is_sound(const Kernels& kernels, const uint8_t* page, uint32_t number) {
  uint32_t crc, stored;
  std::memcpy(&crc, page, 4);
  std::memcpy(&stored, page + 4, 4);
  return stored == number && crc == kernels.crc32c(page + 4, kPageBytes - 4);
}

const uint8_t* GraphPages::record(const Kernels& kernels, uint32_t slot) const {
  if (slot >= place_count) return nullptr;
  const uint32_t place = places[slot], page = place >> 8, at = place & 0xff;
  if (place == kNowhere || page >= count || at >= records_per_page(degree)) return nullptr;
  const uint8_t* bytes = first + static_cast<uint64_t>(page) * kPageBytes;
  uint8_t state = checked[page].load(std::memory_order_relaxed);
  if (state == kUnchecked) {
    state = page_is_sound(kernels, bytes, page) ? kSound : kTorn;
    checked[page].store(state, std::memory_order_relaxed);
  }
  if (state != kSound) return nullptr;
  const uint8_t* record = bytes + kPageHead + at * graph_record_bytes(degree);
  uint32_t head;
  std::memcpy(&head, record, 4);
  return (head & ((1u << kSlotBits) - 1)) == slot ? record : nullptr;
}

void GraphPages::ahead(uint32_t slot) const {
  if (slot >= place_count) return;
  const uint32_t place = places[slot];
  if (place == kNowhere || (place >> 8) >= count) return;
  const uint8_t* record = first + static_cast<uint64_t>(place >> 8) * kPageBytes + kPageHead +
                          (place & 0xff) * graph_record_bytes(degree);
  for (uint32_t line = 0; line < graph_record_bytes(degree); line += 64) prefetch(record + line);
}

namespace {

// Standard errors of an estimate within which the rest of a list is still scored.
constexpr float kDoubt = 3.0f;
constexpr float kCodeError = 0.6f;  // sqrt(1 - 2 / pi): of <s, q> / |q|, where r is rotated well
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
int64_t refine(const Kernels& kernels, const Records& records, const Estimator& estimator,
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

struct FromPages {
  const Kernels& kernels;
  const GraphPages& graph;

  uint32_t operator()(uint32_t slot, uint32_t* named) const {
    const uint8_t* record = graph.record(kernels, slot);
    if (record == nullptr) return 0;
    const uint32_t degree = std::min<uint32_t>({record[3], graph.degree, kMostDegree});
    for (uint32_t i = 0; i < degree; ++i) {
      uint32_t word;
      std::memcpy(&word, record + 4 + 3 * i, 4);
      named[i] = word & ((1u << kSlotBits) - 1);
    }
    return degree;
  }
};

bool is_in(const Allowed& allowed, uint32_t slot) {
  return slot / 8 < allowed.bytes && ((allowed.bits[slot / 8] >> (slot % 8)) & 1);
}

// A row of zeros whose slot is in no page was forgotten: it is near to nothing.
bool is_forgotten(const Estimator& estimator, const FromPages& pages, uint32_t slot) {
  return estimator.factors(estimator.codes().row(slot)) == 0 &&
         pages.graph.record(pages.kernels, slot) == nullptr;
}

bool farther(const Candidate& a, const Candidate& b) { return b < a; }

// Walks through what is not allowed, keeps what is: until the nearest that was not looked at is
// farther than the `breadth` best that are allowed. So the breadth of the walk follows from how
// much of the neighbourhood is allowed. False where that takes more than `most_hops`.
bool walk_inside(const Estimator& estimator, const FromPages& pages, const GraphRequest& request,
                 WalkScratch& scratch) {
  auto& open = scratch.open;
  auto& inside = scratch.inside;
  open.clear();
  inside.clear();
  scratch.visited.clear(request.breadth * 32);
  const auto offer = [&](const Candidate& one) {
    const bool full = inside.size() >= request.breadth;
    if (full && !(one < inside.front())) return;
    open.push_back(one);
    std::push_heap(open.begin(), open.end(), farther);
    if (!is_in(request.allowed, one.slot)) return;
    if (full) {
      std::pop_heap(inside.begin(), inside.end());
      inside.pop_back();
    }
    inside.push_back(one);
    std::push_heap(inside.begin(), inside.end());
  };
  nearest_entries(estimator, request.entries, scratch.starts);
  for (const Candidate& start : scratch.starts)
    if (start.slot < estimator.codes().count && scratch.visited.insert(start.slot)) offer(start);
  Step step;
  for (uint64_t hops = 0; !open.empty(); ++hops) {
    const Candidate here = open.front();
    if (inside.size() >= request.breadth && inside.front() < here) break;
    if (hops >= request.most_hops) return false;
    std::pop_heap(open.begin(), open.end(), farther);
    open.pop_back();
    if (!open.empty()) pages.graph.ahead(open.front().slot);
    look_at(estimator, pages, here.slot, scratch, step);
    for (uint32_t i = 0; i < step.count; ++i) {
      const uint32_t slot = step.slots[i];
      if (!is_forgotten(estimator, pages, slot)) offer({step.keys[i], slot});
    }
  }
  std::sort_heap(inside.begin(), inside.end());
  return inside.size() >= std::min(request.breadth, request.k);
}

struct Counted {
  uint64_t hops = 0, estimated = 0, scored = 0;
};

int64_t search_one(const Kernels& kernels, const GraphRequest& request, uint32_t at,
                   Scratch& scratch, Counted& counted) {
  Estimator estimator(kernels, *request.codes);
  const Prepared prepared = prepare(request, at, estimator, scratch);
  const FromPages pages = {kernels, *request.graph};
  scratch.walk.hops = scratch.walk.estimated = 0;
  const std::vector<Candidate>* list = &scratch.walk.inside;
  bool complete = true;
  if (request.inside) {
    complete = walk_inside(estimator, pages, request, scratch.walk);
  } else {
    const auto usable = [&](uint32_t slot) { return !is_forgotten(estimator, pages, slot); };
    const auto ahead = [&](uint32_t slot) { request.graph->ahead(slot); };
    walk(estimator, pages, usable, ahead, request.entries, request.breadth, scratch.walk);
    std::vector<Candidate>& found = scratch.walk.frontier.found();
    const auto barred = [&](const Candidate& one) { return !is_in(request.allowed, one.slot); };
    found.erase(std::remove_if(found.begin(), found.end(), barred), found.end());
    list = &found;
  }
  counted.hops += scratch.walk.hops;
  counted.estimated += scratch.walk.estimated;
  uint32_t found = 0;
  if (complete) {
    const int64_t bad = refine(kernels, *request.records, estimator, prepared, *list, request.k,
                               scratch, counted.scored);
    if (bad != kAllGood) return bad;
    found = static_cast<uint32_t>(scratch.best.size());
  }
  request.found[at] = found;
  const uint64_t row = static_cast<uint64_t>(at) * request.k;
  for (uint32_t i = 0; i < found; ++i) {
    request.slots[row + i] = scratch.best[i].slot;
    request.distances[row + i] = scratch.best[i].key;
  }
  return kAllGood;
}

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

}  // namespace

int64_t search_graph(const Kernels& kernels, const GraphRequest& request) {
  std::atomic<uint64_t> hops{0}, estimated{0}, scored{0};
  const int64_t bad =
      on_threads(request.query_count, request.threads, [&](uint32_t at, Scratch& scratch) {
        Counted counted;
        const int64_t broken = search_one(kernels, request, at, scratch, counted);
        hops += counted.hops;
        estimated += counted.estimated;
        scored += counted.scored;
        return broken;
      });
  request.counted[0] = hops;
  request.counted[1] = estimated;
  request.counted[2] = scored;
  return bad;
}

int64_t gather_rows(const Kernels& kernels, const GatherRequest& request) {
  return on_threads(request.query_count, request.threads, [&](uint32_t at, Scratch& scratch) {
    Estimator estimator(kernels, *request.codes);
    const Prepared prepared = prepare(request, at, estimator, scratch);
    std::vector<Candidate>& found = scratch.walk.inside;
    found.clear();
    const uint8_t* rows[kMostDegree];
    float keys[kMostDegree];
    float limit = std::numeric_limits<float>::infinity();
    for (uint64_t first = 0; first < request.listed_count; first += kMostDegree) {
      const uint32_t count = static_cast<uint32_t>(
          std::min<uint64_t>(kMostDegree, request.listed_count - first));
      for (uint32_t i = 0; i < count; ++i) {
        rows[i] = request.codes->row(request.listed[first + i]);
        const uint64_t later = first + i + kMostDegree;
        if (later < request.listed_count) {
          const uint8_t* next = request.codes->row(request.listed[later]);
          prefetch(next);
          prefetch(next + request.codes->bytes);
        }
      }
      estimator.keys(rows, count, keys);
      for (uint32_t i = 0; i < count; ++i)
        if (!(keys[i] > limit)) found.push_back({keys[i], request.listed[first + i]});
      if (found.size() >= 2 * static_cast<size_t>(request.keep) + kMostDegree) {
        std::nth_element(found.begin(), found.begin() + (request.keep - 1), found.end());
        found.resize(request.keep);
        limit = found.back().key;
      }
    }
    std::sort(found.begin(), found.end());
    if (found.size() > request.keep) found.resize(request.keep);
    uint64_t scored = 0;
    const int64_t bad = refine(kernels, *request.records, estimator, prepared, found, request.k,
                               scratch, scored);
    if (bad != kAllGood) return bad;
    const uint64_t row = static_cast<uint64_t>(at) * request.k;
    for (uint32_t i = 0; i < request.k; ++i) {
      request.slots[row + i] = scratch.best[i].slot;
      request.distances[row + i] = scratch.best[i].key;
    }
    return kAllGood;
  });
}

}  // namespace memdb
