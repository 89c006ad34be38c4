// Blocks of sets of rows: storage/filters/bitmaps.py has their grammar.
//
// A roaring block is taken as the sorted, disjoint intervals of its rows, whatever its containers
// are. What does not fit one block after a change is not cut here: the caller is told.
#pragma once

#include <cstdint>
#include <vector>

#include "seal.h"

namespace memdb_storage {

constexpr size_t kSmallPayloadMaxBytes = kSmallMaxBytes - 4;
constexpr size_t kInlineMax = 8;
constexpr uint32_t kChunkRows = 1 << 13;

struct Interval {
  uint32_t first, last;  // both are in it
};

using Rows = std::vector<uint32_t>;  // ascending, distinct
using Payload = std::vector<uint8_t>;

// The intervals of a roaring bitmap in portable form; false where it has no known form.
bool read_roaring(Bytes portable, std::vector<Interval>* intervals);

// Append the portable form of ascending, disjoint, not adjoining intervals to `out`: byte for byte
// what CRoaring writes after run_optimize. False, `out` undefined, where that takes over `limit`.
bool write_roaring(const std::vector<Interval>& intervals, size_t limit, Payload* out);

// The block of a set that has these rows and no others; false where it would be too large.
bool new_block(const Rows& rows, Payload* block);

// The rows of a block of kind A; false for another kind, or a broken one.
bool inline_rows(Bytes block, Rows* rows);

// A block of kind R or B that begins at row `first`, with rows added; false where it has to be cut.
bool extended_block(Bytes block, uint32_t first, const Rows& rows, Payload* out);

}  // namespace memdb_storage
