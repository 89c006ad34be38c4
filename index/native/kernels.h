// The table of kernels that differ by instruction set, and the layouts they read.
//
// One file per instruction set fills one table; dispatch.cpp chooses. Those files are compiled
// with flags of their own, so they include nothing but this header and intrinsics: an inline
// function of the standard library compiled there could be the copy the linker keeps for all.
//
// Layouts (little-endian):
//   block    8 rows' sign codes, word-major: word w of row r is at u64[w * 8 + r]
//   factors  per row offset f32 and slope f32; the key of a row is offset + slope * <sign, query>
//   record   slot u32 | scale f32 | norm f32 | payload | crc32c u32 of all before it
#pragma once
#include <cstddef>
#include <cstdint>

namespace memdb {

constexpr uint32_t kBlockRows = 8;
constexpr uint32_t kGroupRows = 4096;                      // rows whose factors lie together
constexpr uint32_t kGroupBlocks = kGroupRows / kBlockRows;
constexpr uint32_t kQueryBits = 4;                         // bit planes of a quantised query
constexpr uint32_t kRecordHead = 12;                       // bytes before the payload
constexpr uint32_t kRecordTail = 4;                        // its checksum
constexpr uint32_t kByteAccumulations = 31;                // popcounts of 8 that fit one byte

// A query in bit planes. Its coordinate i is about delta * sum_j 2^j * (2 * plane_j[i] - 1), so
// <sign, query> = delta * (15 * dim - 2 * sum_j 2^j * popcount(code ^ plane_j)) = base + step * P.
struct QueryPlanes {
  const uint64_t* planes;  // (kQueryBits, words)
  uint32_t words;
  float base;
  float step;
};

struct Kernels {
  const char* name;

  // Estimates the keys of `count` blocks of one group. keys[8 i + r] is the key of row r of
  // block blocks[i]; bit r of masks[i] is set where the row is allowed and not (key >= threshold),
  // so that a NaN key passes and a NaN threshold lets everything pass.
  void (*scan)(const uint64_t* codes, const float* offsets, const float* slopes,
               const uint8_t* allowed, const uint16_t* blocks, uint32_t count,
               const QueryPlanes& query, float threshold, float* keys, uint8_t* masks);

  // Inner product of a float query with a payload of int8 / float16 / float32 numbers, unscaled.
  float (*dot8)(const float* query, const uint8_t* payload, uint32_t dim);
  float (*dot16)(const float* query, const uint8_t* payload, uint32_t dim);
  float (*dot32)(const float* query, const uint8_t* payload, uint32_t dim);
  // Squared Euclidean distance of a float query to scale * payload.
  float (*l2_8)(const float* query, const uint8_t* payload, float scale, uint32_t dim);
  float (*l2_16)(const float* query, const uint8_t* payload, float scale, uint32_t dim);
  float (*l2_32)(const float* query, const uint8_t* payload, float scale, uint32_t dim);

  // crc32c (Castagnoli) of a buffer.
  uint32_t (*crc32c)(const uint8_t* data, size_t size);
};

// Null where this build or this CPU lacks the instruction set.
const Kernels* scalar_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* neon_kernels();

// Table `level` of those this machine can run, slowest first; null past the last.
const Kernels* kernels_at(uint32_t level);

}  // namespace memdb
