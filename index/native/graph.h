// Searches by a graph of pages: a walk on estimates, then the best of it scored from the records.
#pragma once
#include <atomic>
#include <cstdint>

#include "graph_walk.h"
#include "kernels.h"
#include "score.h"
#include "search.h"

namespace memdb {

// graph.bin's body:
//   page   := crc32c u32 of all after it | number u32 | 0 u64 | record*
//   record := slot u24 | degree u8 | neighbour u24 [degree of the graph]
constexpr uint32_t kPageBytes = 4096;
constexpr uint32_t kPageHead = 16;
constexpr uint32_t kNowhere = 0xffffffffu;
constexpr uint32_t kSlotBits = 24;

constexpr uint32_t graph_record_bytes(uint32_t degree) { return 4 + 3 * degree; }
// One byte is left, so that a neighbour may be read as four.
constexpr uint32_t records_per_page(uint32_t degree) {
  return (kPageBytes - kPageHead - 1) / graph_record_bytes(degree);
}

// What is known of a page. Only looking at it tells.
constexpr uint8_t kUnchecked = 0, kSound = 1, kTorn = 2;

struct GraphPages {
  const uint8_t* first;
  uint64_t count;
  uint32_t degree;         // room for neighbours in a record
  const uint32_t* places;  // by slot: page << 8 | record, or kNowhere
  uint64_t place_count;
  std::atomic<uint8_t>* checked;  // (count)

  // The record of a slot in a sound page, or null.
  const uint8_t* record(const Kernels& kernels, uint32_t slot) const;
  // Fills `named`, of room for kMostDegree, with the neighbours in it; returns how many.
  uint32_t neighbours(const Kernels& kernels, uint32_t slot, uint32_t* named) const;
  // Starts fetching what `record` will look at.
  void ahead(uint32_t slot) const;
};

bool page_is_sound(const Kernels& kernels, const uint8_t* page, uint32_t number);
// The same of a page that another thread or process may be writing: looks again before it denies.
bool page_settles(const Kernels& kernels, const uint8_t* page, uint32_t number);

struct GraphRequest {
  const GraphPages* graph;
  const RowCodes* codes;
  const Records* records;
  Entries entries;
  const float* queries;  // (query_count, dim), of unit length for kCosine
  const float* signs;    // of the rotation
  const float* centre;   // rotated, (dim)
  Allowed allowed;
  bool inside;  // many nodes are not allowed: walk until enough that are were found
  uint32_t query_count;
  uint32_t k;
  uint32_t breadth;   // at least k: the list of the walk, all of which may be scored
  uint64_t most_hops;  // of a walk inside; one that needs more gives up
  uint32_t threads;
  uint32_t* slots;     // out: (query_count, k)
  float* distances;    // out: (query_count, k), ascending
  uint32_t* found;     // out: (query_count); fewer than k where the walk found no more, or gave up
  uint64_t* counted;   // out: hops, estimates and scored records of all queries
  // Slots within the codes that wait for the graph: the nearest of them by estimate join the list.
  const uint32_t* beside = nullptr;
  uint64_t beside_count = 0;
  uint32_t beside_keep = 0;  // how many may join
};

// Returns kAllGood or a slot whose record is missing or damaged (the output is then undefined).
int64_t search_graph(const Kernels& kernels, const GraphRequest& request);

// The `keep` of the listed rows with the smallest estimates, unordered; `slots` are within the
// codes. For few rows here and there: whole blocks are cheaper to scan together.
struct GatherRequest {
  const RowCodes* codes;
  const Records* records;
  const float* queries;
  const float* signs;
  const float* centre;
  const uint32_t* listed;
  uint64_t listed_count;
  uint32_t query_count;
  uint32_t k;     // at most listed_count
  uint32_t keep;  // at least k
  uint32_t threads;
  uint32_t* slots;
  float* distances;
};
int64_t gather_rows(const Kernels& kernels, const GatherRequest& request);
// `found` becomes the `keep` of `count` listed rows that are nearest by estimate, ascending.
void nearest_listed(const Estimator& estimator, const uint32_t* listed, uint64_t count,
                    uint32_t keep, std::vector<Candidate>& found);
// `list`, ascending, is joined by the nearest of what waits beside the graph. False where the walk
// has found less than k: then the caller scans.
bool join_beside(const Estimator& estimator, const GraphRequest& request,
                 std::vector<Candidate>& list, std::vector<Candidate>& spare);

}  // namespace memdb
