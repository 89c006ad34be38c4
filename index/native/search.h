// Search over one space's files: estimate by codes, keep a shortlist, re-score from records.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "score.h"

namespace memdb {

// Standard errors of an estimate within which the rest of a list is still scored.
constexpr float kDoubt = 3.0f;
constexpr float kCodeError = 0.6f;  // sqrt(1 - 2 / pi): of <s, q> / |q|, where r is rotated well

struct Candidate {
  float key;
  uint32_t slot;
};

// Smaller keys first, then smaller slots.
inline bool operator<(const Candidate& a, const Candidate& b) {
  return a.key < b.key || (a.key == b.key && a.slot < b.slot);
}

struct Codes {
  const uint8_t* groups;  // each: kGroupBlocks blocks, kGroupRows factors
  uint64_t group_count;
  uint32_t bytes;  // of one code
};

// Bytes of one group of codes with its factors.
uint64_t group_bytes(uint32_t code_bytes);

// A bit a slot, in `bytes` bytes.
struct Allowed {
  const uint8_t* bits;
  uint64_t bytes;
};

// The `keep` allowed rows of smallest key, unordered. `allowed` ends within the groups. Returns
// how many blocks were looked at.
uint64_t shortlist(const Kernels& kernels, const Codes& codes, const QueryTables& query,
                   const Allowed& allowed, uint32_t keep, std::vector<Candidate>& found);

struct SearchRequest {
  const Codes* codes;  // null: the records are all there is
  const Records* records;
  bool rough;            // without codes: estimate from records, then re-score the best `keep`
  const float* queries;  // (query_count, dim), of unit length for kCosine
  const float* signs;    // of the rotation
  const float* centre;   // rotated, (dim)
  Allowed allowed;
  uint32_t query_count;
  uint32_t k;  // at most the number of allowed slots
  uint32_t keep;  // at most so many are scored where estimates tell who may be near
  uint32_t threads;
  uint32_t* slots;   // out: (query_count, k)
  float* distances;  // out: (query_count, k), ascending
};

// Returns kAllGood or a slot whose record is missing or damaged (the output is then undefined).
int64_t search(const Kernels& kernels, const SearchRequest& request);

}  // namespace memdb
