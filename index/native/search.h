// Search over one space's files: estimate by codes, keep a shortlist, re-score from records.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace memdb {

enum class Metric : uint32_t { kCosine = 0, kInnerProduct = 1, kSquaredL2 = 2 };
enum class Precision : uint32_t { kInt8 = 0, kFloat16 = 1 };

struct Candidate {
  float key;
  uint32_t slot;
};

// Smaller keys first, then smaller slots.
inline bool operator<(const Candidate& a, const Candidate& b) {
  return a.key < b.key || (a.key == b.key && a.slot < b.slot);
}

struct Codes {
  const uint8_t* groups;  // each: kGroupBlocks blocks, kGroupRows offsets, kGroupRows slopes
  uint64_t group_count;
  uint32_t words;
};

struct Records {
  const uint8_t* first;  // record of slot 0
  uint64_t count;
  uint64_t size;  // bytes of one record
  uint32_t dim;
  Metric metric;
  Precision precision;
};

// Bytes of one group of codes with its factors.
uint64_t group_bytes(uint32_t words);

// The `keep` allowed rows of smallest key, unordered. `allowed` has a bit a slot, in
// `allowed_bytes` bytes, all of them within the groups.
void shortlist(const Kernels& kernels, const Codes& codes, const QueryPlanes& query,
               const uint8_t* allowed, uint64_t allowed_bytes, uint32_t keep,
               std::vector<Candidate>& found);

// Distance of a query to one sealed record. The query is rotated for kInt8, as given for kFloat16,
// of unit length for kCosine.
float distance(const Kernels& kernels, const Records& records, const float* query,
               const uint8_t* record);

constexpr int64_t kAllGood = -1;

// Distances of listed slots into `out`; returns the first slot whose record is missing or damaged.
int64_t rescore(const Kernels& kernels, const Records& records, const float* query,
                const uint32_t* slots, uint64_t count, float* out);

// Distances of one query to (count, dim) float32 rows. What leaves the comfort of float32 is summed
// in double precision, so that a vector's length does not matter to a cosine.
void score_rows(const Kernels& kernels, Metric metric, const float* query, const float* rows,
                uint64_t count, uint32_t dim, float* out);

struct SearchRequest {
  const Codes* codes;  // null: score every allowed record
  const Records* records;
  const float* queries;  // (query_count, dim), of unit length for kCosine
  const float* signs;    // of the rotation
  const float* centre;   // rotated, (dim)
  const uint8_t* allowed;
  uint64_t allowed_bytes;
  uint32_t query_count;
  uint32_t k;  // at most the number of allowed slots
  uint32_t keep;
  uint32_t threads;
  uint32_t* slots;    // out: (query_count, k)
  float* distances;   // out: (query_count, k), ascending
};

// Returns kAllGood or a slot whose record is missing or damaged (the output is then undefined).
int64_t search(const Kernels& kernels, const SearchRequest& request);

}  // namespace memdb
