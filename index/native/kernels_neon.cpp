// NEON kernels (AArch64): table look-ups by TBL, 16 rows at once; 4 floats a step.
#include "kernels.h"

#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#if defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#include <cstring>

namespace memdb {
namespace {

// Sums of table entries of the 32 rows of a block.
inline void sum_entries(const uint8_t* code, const QueryTables& query, uint32_t* sums) {
  uint32x4_t wide[8];
  for (uint32x4_t& four : wide) four = vdupq_n_u32(0);
  for (uint32_t first = 0; first < query.bytes; first += kNarrowBytes) {
    const uint32_t last =
        first + kNarrowBytes < query.bytes ? first + kNarrowBytes : query.bytes;
    uint16x8_t narrow[4] = {vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0)};
    for (uint32_t byte = first; byte < last; ++byte) {
      const uint8_t* entries = query.entries + static_cast<size_t>(byte) * 2 * kTableEntries;
      const uint8x16_t low_table = vld1q_u8(entries), high_table = vld1q_u8(entries + 16);
      for (int half = 0; half < 2; ++half) {
        const uint8x16_t rows = vld1q_u8(code + static_cast<size_t>(byte) * kBlockRows + 16 * half);
        const uint8x16_t low = vqtbl1q_u8(low_table, vandq_u8(rows, vdupq_n_u8(15)));
        const uint8x16_t both = vaddq_u8(low, vqtbl1q_u8(high_table, vshrq_n_u8(rows, 4)));
        narrow[2 * half] = vaddw_u8(narrow[2 * half], vget_low_u8(both));
        narrow[2 * half + 1] = vaddw_u8(narrow[2 * half + 1], vget_high_u8(both));
      }
    }
    for (int eight = 0; eight < 4; ++eight) {
      wide[2 * eight] = vaddw_u16(wide[2 * eight], vget_low_u16(narrow[eight]));
      wide[2 * eight + 1] = vaddw_u16(wide[2 * eight + 1], vget_high_u16(narrow[eight]));
    }
  }
  for (int four = 0; four < 8; ++four) vst1q_u32(sums + 4 * four, wide[four]);
}

// The float of a word's upper half.
float upper_half(uint32_t word) {
  word &= 0xffff0000u;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

void scan(const uint8_t* codes, const uint32_t* factors, const uint32_t* allowed,
          const uint16_t* blocks, uint32_t count, const QueryTables& query, float threshold,
          float* keys, uint32_t* masks) {
  const size_t stride = static_cast<size_t>(query.bytes) * kBlockRows;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t block = blocks[i];
    uint32_t sums[kBlockRows];
    sum_entries(codes + block * stride, query, sums);
    uint32_t mask = 0;
    for (uint32_t row = 0; row < kBlockRows; ++row) {
      const uint32_t factor = factors[block * kBlockRows + row];
      const float dot = query.base + query.step * static_cast<float>(sums[row]);
      const float key = upper_half(factor << 16) + upper_half(factor) * dot;
      keys[i * kBlockRows + row] = key;
      mask |= static_cast<uint32_t>(!(key >= threshold)) << row;
    }
    masks[i] = mask & allowed[block];
  }
}

struct Pair {
  float32x4_t low, high;
};

struct Int8 {
  static Pair load8(const uint8_t* payload, uint32_t i) {
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_u8(vld1_u8(payload + i)));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))),
            vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide)))};
  }
  static float load1(const uint8_t* payload, uint32_t i) {
    return static_cast<float>(static_cast<int8_t>(payload[i]));
  }
};

struct Float16 {
  static Pair load8(const uint8_t* payload, uint32_t i) {
    const float16x8_t halves = vreinterpretq_f16_u8(vld1q_u8(payload + 2 * static_cast<size_t>(i)));
    return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_f32_f16(vget_high_f16(halves))};
  }
  static float load1(const uint8_t* payload, uint32_t i) {
    uint16_t half;
    std::memcpy(&half, payload + 2 * static_cast<size_t>(i), 2);
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
  }
};

struct Float32 {
  static Pair load8(const uint8_t* payload, uint32_t i) {
    const float* numbers = reinterpret_cast<const float*>(payload) + i;
    return {vld1q_f32(numbers), vld1q_f32(numbers + 4)};
  }
  static float load1(const uint8_t* payload, uint32_t i) {
    return reinterpret_cast<const float*>(payload)[i];
  }
};

template <class Number>
float dot(const float* query, const uint8_t* payload, uint32_t dim) {
  float32x4_t first = vdupq_n_f32(0), second = vdupq_n_f32(0);
  uint32_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    const Pair numbers = Number::load8(payload, i);
    first = vfmaq_f32(first, vld1q_f32(query + i), numbers.low);
    second = vfmaq_f32(second, vld1q_f32(query + i + 4), numbers.high);
  }
  float total = vaddvq_f32(vaddq_f32(first, second));
  for (; i < dim; ++i) total += query[i] * Number::load1(payload, i);
  return total;
}

template <class Number>
float l2(const float* query, const uint8_t* payload, float scale, uint32_t dim) {
  const float32x4_t scales = vdupq_n_f32(scale);
  float32x4_t first = vdupq_n_f32(0), second = vdupq_n_f32(0);
  uint32_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    const Pair numbers = Number::load8(payload, i);
    const float32x4_t a = vfmsq_f32(vld1q_f32(query + i), scales, numbers.low);
    const float32x4_t b = vfmsq_f32(vld1q_f32(query + i + 4), scales, numbers.high);
    first = vfmaq_f32(first, a, a);
    second = vfmaq_f32(second, b, b);
  }
  float total = vaddvq_f32(vaddq_f32(first, second));
  for (; i < dim; ++i) {
    const float gap = query[i] - scale * Number::load1(payload, i);
    total += gap * gap;
  }
  return total;
}

#if defined(__ARM_FEATURE_CRC32)
uint32_t crc32c(const uint8_t* data, size_t size) {
  uint32_t crc = 0xffffffffu;
  for (; size >= 8; size -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    crc = __crc32cd(crc, word);
  }
  for (; size > 0; --size, ++data) crc = __crc32cb(crc, *data);
  return ~crc;
}
#else
uint32_t crc32c(const uint8_t* data, size_t size) { return scalar_kernels()->crc32c(data, size); }
#endif

int32_t dot2(const int8_t* query, const uint8_t* payload, uint32_t bytes) {
  return scalar_kernels()->dot2(query, payload, bytes);
}

uint32_t hamming(const uint8_t* a, const uint8_t* b, uint32_t bytes) {
  uint32_t total = 0;
  for (; bytes >= 16; bytes -= 16, a += 16, b += 16)
    total += vaddlvq_u8(vcntq_u8(veorq_u8(vld1q_u8(a), vld1q_u8(b))));
  return total + scalar_kernels()->hamming(a, b, bytes);
}

void weigh(const uint8_t* const* codes, uint32_t count, const uint64_t* planes, uint32_t words,
           uint32_t* sums) {
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t total = 0;
    for (uint32_t b = 0; b < kPlanes; ++b) {
      const auto* plane =
          reinterpret_cast<const uint8_t*>(planes + static_cast<size_t>(b) * words);
      total += hamming(codes[i], plane, 8 * words) << b;
    }
    sums[i] = total;
  }
}

int32_t dot88(const int8_t* a, const int8_t* b, uint32_t dim) {
  int32x4_t total = vdupq_n_s32(0);
  uint32_t i = 0;
  for (; i + 16 <= dim; i += 16) {
    const int8x16_t x = vld1q_s8(a + i), y = vld1q_s8(b + i);
    total = vpadalq_s16(total, vmull_s8(vget_low_s8(x), vget_low_s8(y)));
    total = vpadalq_s16(total, vmull_s8(vget_high_s8(x), vget_high_s8(y)));
  }
  int32_t sum = vaddvq_s32(total);
  for (; i < dim; ++i) sum += a[i] * b[i];
  return sum;
}

constexpr Kernels kNeon = {"neon",       scan,     dot<Int8>,   dot<Float16>,
                           dot<Float32>, l2<Int8>, l2<Float16>, l2<Float32>,
                           dot2,         hamming, weigh,       dot88,     crc32c};

}  // namespace

const Kernels* neon_kernels() { return &kNeon; }

}  // namespace memdb
#else
namespace memdb {
const Kernels* neon_kernels() { return nullptr; }
}  // namespace memdb
#endif
