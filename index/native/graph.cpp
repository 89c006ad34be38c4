#include "graph.h"

#include "graph_refine.h"

namespace memdb {

constexpr int kLooks = 4;  // at a page that may be being written

bool page_is_sound(const Kernels& kernels, const uint8_t* page, uint32_t number) {
  uint32_t crc, stored;
  std::memcpy(&crc, page, 4);
  std::memcpy(&stored, page + 4, 4);
  return stored == number && crc == kernels.crc32c(page + 4, kPageBytes - 4);
}

bool page_settles(const Kernels& kernels, const uint8_t* page, uint32_t number) {
  for (int look = 0; look < kLooks; ++look) {
    if (page_is_sound(kernels, page, number)) return true;
    std::this_thread::yield();
  }
  return false;
}

const uint8_t* GraphPages::record(const Kernels& kernels, uint32_t slot) const {
  if (slot >= place_count) return nullptr;
  const uint32_t place = places[slot], page = place >> 8, at = place & 0xff;
  if (place == kNowhere || page >= count || at >= records_per_page(degree)) return nullptr;
  const uint8_t* bytes = first + static_cast<uint64_t>(page) * kPageBytes;
  uint8_t state = checked[page].load(std::memory_order_relaxed);
  if (state == kUnchecked) {
    state = page_settles(kernels, bytes, page) ? kSound : kTorn;
    checked[page].store(state, std::memory_order_relaxed);
  }
  if (state != kSound) return nullptr;
  const uint8_t* record = bytes + kPageHead + at * graph_record_bytes(degree);
  uint32_t head;
  std::memcpy(&head, record, 4);
  return (head & ((1u << kSlotBits) - 1)) == slot ? record : nullptr;
}

uint32_t GraphPages::neighbours(const Kernels& kernels, uint32_t slot, uint32_t* named) const {
  const uint8_t* found = record(kernels, slot);
  if (found == nullptr) return 0;
  const uint32_t count = std::min<uint32_t>({found[3], degree, kMostDegree});
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t word;
    std::memcpy(&word, found + 4 + 3 * i, 4);
    named[i] = word & ((1u << kSlotBits) - 1);
  }
  return count;
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

struct FromPages {
  const Kernels& kernels;
  const GraphPages& graph;

  uint32_t operator()(uint32_t slot, uint32_t* named) const {
    return graph.neighbours(kernels, slot, named);
  }
};

// A row of zeros whose slot is in no page was forgotten: it is near to nothing.
bool is_forgotten(const Estimator& estimator, const FromPages& pages, uint32_t slot) {
  return estimator.factors(estimator.codes().row(slot)) == 0 &&
         pages.graph.record(pages.kernels, slot) == nullptr;
}

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

int64_t search_one(const Kernels& kernels, const GraphRequest& request, uint32_t at,
                   Scratch& scratch, Counted& counted) {
  Estimator estimator(kernels, *request.codes);
  const Prepared prepared = prepare(request, at, estimator, scratch);
  const FromPages pages = {kernels, *request.graph};
  scratch.walk.hops = scratch.walk.estimated = 0;
  std::vector<Candidate>* list = &scratch.walk.inside;
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
  complete = complete && join_beside(estimator, request, *list, scratch.walk.open);
  counted.hops += scratch.walk.hops;
  counted.estimated += scratch.walk.estimated + request.beside_count;
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

bool join_beside(const Estimator& estimator, const GraphRequest& request,
                 std::vector<Candidate>& list, std::vector<Candidate>& spare) {
  if (request.beside_count == 0) return true;
  if (list.size() < request.k) return false;
  nearest_listed(estimator, request.beside, request.beside_count, request.beside_keep, spare);
  const auto walked = static_cast<std::ptrdiff_t>(list.size());
  list.insert(list.end(), spare.begin(), spare.end());
  std::inplace_merge(list.begin(), list.begin() + walked, list.end());
  return true;
}

void nearest_listed(const Estimator& estimator, const uint32_t* listed, uint64_t listed_count,
                    uint32_t keep, std::vector<Candidate>& found) {
  found.clear();
  const RowCodes& codes = estimator.codes();
  const uint8_t* rows[kMostDegree];
  float keys[kMostDegree];
  float limit = std::numeric_limits<float>::infinity();
  for (uint64_t first = 0; first < listed_count; first += kMostDegree) {
    const uint32_t count = static_cast<uint32_t>(
        std::min<uint64_t>(kMostDegree, listed_count - first));
    for (uint32_t i = 0; i < count; ++i) {
      rows[i] = codes.row(listed[first + i]);
      const uint64_t later = first + i + kMostDegree;
      if (later < listed_count) {
        const uint8_t* next = codes.row(listed[later]);
        prefetch(next);
        prefetch(next + codes.bytes);
      }
    }
    estimator.keys(rows, count, keys);
    for (uint32_t i = 0; i < count; ++i)
      if (!(keys[i] > limit)) found.push_back({keys[i], listed[first + i]});
    if (found.size() >= 2 * static_cast<size_t>(keep) + kMostDegree) {
      std::nth_element(found.begin(), found.begin() + (keep - 1), found.end());
      found.resize(keep);
      limit = found.back().key;
    }
  }
  std::sort(found.begin(), found.end());
  if (found.size() > keep) found.resize(keep);
}

int64_t gather_rows(const Kernels& kernels, const GatherRequest& request) {
  return on_threads(request.query_count, request.threads, [&](uint32_t at, Scratch& scratch) {
    Estimator estimator(kernels, *request.codes);
    const Prepared prepared = prepare(request, at, estimator, scratch);
    std::vector<Candidate>& found = scratch.walk.inside;
    nearest_listed(estimator, request.listed, request.listed_count, request.keep, found);
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
