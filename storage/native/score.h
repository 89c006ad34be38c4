// BM25 of one term's postings, added up in a dense array: storage/reference.py has the twins.
#pragma once

#include <cstddef>
#include <cstdint>

#include "terms.h"

namespace memdb_storage {

// The row of a stored posting (row u32, tf u8, length u8).
inline uint32_t posting_row(const uint8_t* posting) {
  uint32_t row = 0;
  for (int i = 0; i < 4; ++i) row |= static_cast<uint32_t>(posting[i]) << (8 * i);
  return row;
}

// One more than the greatest row of `count` postings; 0 where there are none.
uint64_t postings_end(const uint8_t* postings, size_t count);

// scores[row] += weight * tf / (tf + norm[length]) of each posting, in float32, each step rounded.
// norm has 256 entries; scores must hold every row.
void add_scores(const uint8_t* postings, size_t count, const float* norm, float weight,
                float* scores);

// scores[row] = 0 of each posting.
void clear_scores(const uint8_t* postings, size_t count, float* scores);

}  // namespace memdb_storage
