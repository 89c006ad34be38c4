// The table of kernels that differ by instruction set, and the layouts they read.
//
// One file per instruction set fills one table; dispatch.cpp chooses. Those files are compiled
// with flags of their own, so they include nothing but this header and intrinsics: an inline
// function of the standard library compiled there could be the copy the linker keeps for all.
//
// Layouts (little-endian):
//   block    32 rows' sign codes, byte-major: byte b of row r is at u8[b * 32 + r]
//   factors  per row a word u32: offset in its low and slope in its high half, both the upper
//            halves of floats (bfloat16); the key of a row is offset + slope * <sign, query>
//   record   slot u32 | scale f32 | norm f32 | payload | crc32c u32 of all before it
#pragma once
#include <cstddef>
#include <cstdint>

namespace memdb {

constexpr uint32_t kBlockRows = 32;
constexpr uint32_t kGroupRows = 4096;                      // rows whose factors lie together
constexpr uint32_t kGroupBlocks = kGroupRows / kBlockRows;
constexpr uint32_t kTableEntries = 16;                     // one for each value of four bits
constexpr uint32_t kTableMax = 63;   // four entries fit a byte: sums are widened every fourth
constexpr uint32_t kNarrowBytes = 512;  // bytes of a code whose 1,024 entries fit 16 bits
constexpr uint32_t kPlanes = 5;         // bits of a query's coordinate while a graph is walked
constexpr uint32_t kRecordHead = 12;    // bytes before the payload
constexpr uint32_t kRecordTail = 4;     // its checksum
static_assert(4 * kTableMax <= 255 && 2 * kNarrowBytes * kTableMax <= 65535, "sums never wrap");

// A query as tables of what four sign bits contribute: with T the sum of the entries that a code
// selects, <sign, query> is about base + step * T. Entries are at most kTableMax.
struct QueryTables {
  const uint8_t* entries;  // (2 * bytes, kTableEntries): low and high half of each code byte
  uint32_t bytes;          // of a code, a multiple of 8
  float base;
  float step;
};

struct Kernels {
  const char* name;

  // Estimates the keys of `count` blocks of one group. keys[32 i + r] is the key of row r of
  // block blocks[i]; bit r of masks[i] is set where the row is allowed and not (key >= threshold),
  // so that a NaN key passes and a NaN threshold lets everything pass.
  void (*scan)(const uint8_t* codes, const uint32_t* factors, const uint32_t* allowed,
               const uint16_t* blocks, uint32_t count, const QueryTables& query,
               float threshold, float* keys, uint32_t* masks);

  // Inner product of a float query with a payload of int8 / float16 / float32 numbers, unscaled.
  float (*dot8)(const float* query, const uint8_t* payload, uint32_t dim);
  float (*dot16)(const float* query, const uint8_t* payload, uint32_t dim);
  float (*dot32)(const float* query, const uint8_t* payload, uint32_t dim);
  // Squared Euclidean distance of a float query to scale * payload.
  float (*l2_8)(const float* query, const uint8_t* payload, float scale, uint32_t dim);
  float (*l2_16)(const float* query, const uint8_t* payload, float scale, uint32_t dim);
  float (*l2_32)(const float* query, const uint8_t* payload, float scale, uint32_t dim);

  // sum_i query_i * level_i with the 2-bit levels 0 ... 3 of a payload: coordinate 4 i + s is bits
  // 2 s of byte i, and query[s * bytes + i]. At most 3 * 127 * 8,192 in magnitude.
  int32_t (*dot2)(const int8_t* query, const uint8_t* payload, uint32_t bytes);
  // Bits that differ.
  uint32_t (*hamming)(const uint8_t* a, const uint8_t* b, uint32_t bytes);

  // sums[i] = sum over b of 2^b * the bits in which codes[i] and plane b differ; codes have `words`
  // words at any address, planes are (kPlanes, words). At most 31 * 8,192.
  void (*weigh)(const uint8_t* const* codes, uint32_t count, const uint64_t* planes,
                uint32_t words, uint32_t* sums);
  // Inner product of two rows of numbers in -127 ... 127: at most 127 * 127 * 8,192.
  int32_t (*dot88)(const int8_t* a, const int8_t* b, uint32_t dim);

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
