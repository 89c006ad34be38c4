// NEON kernels (AArch64): CNT counts bits by bytes; 4 floats a step.
#include "kernels.h"

#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#if defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#include <cstring>

namespace memdb {
namespace {

// sum_j 2^j * popcount(code ^ plane_j) of two rows, as two u64.
inline uint64x2_t weighted_popcounts(const uint64_t* code, const QueryPlanes& query) {
  const uint32_t words = query.words;
  uint64x2_t totals[kQueryBits] = {vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0),
                                   vdupq_n_u64(0)};
  for (uint32_t first = 0; first < words; first += kByteAccumulations) {
    const uint32_t last = first + kByteAccumulations < words ? first + kByteAccumulations : words;
    uint8x16_t sums[kQueryBits] = {vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0)};
    for (uint32_t w = first; w < last; ++w) {
      const uint64x2_t rows = vld1q_u64(code + w * kBlockRows);
      for (uint32_t plane = 0; plane < kQueryBits; ++plane) {
        const uint64x2_t bits = vdupq_n_u64(query.planes[static_cast<size_t>(plane) * words + w]);
        const uint8x16_t differing = vcntq_u8(vreinterpretq_u8_u64(veorq_u64(rows, bits)));
        sums[plane] = vaddq_u8(sums[plane], differing);
      }
    }
    for (uint32_t plane = 0; plane < kQueryBits; ++plane)
      totals[plane] = vpadalq_u32(totals[plane], vpaddlq_u16(vpaddlq_u8(sums[plane])));
  }
  const uint64x2_t low = vaddq_u64(totals[0], vshlq_n_u64(totals[1], 1));
  const uint64x2_t high = vaddq_u64(totals[2], vshlq_n_u64(totals[3], 1));
  return vaddq_u64(low, vshlq_n_u64(high, 2));
}

void scan(const uint64_t* codes, const float* offsets, const float* slopes,
          const uint8_t* allowed, const uint16_t* blocks, uint32_t count,
          const QueryPlanes& query, float threshold, float* keys, uint8_t* masks) {
  const size_t stride = static_cast<size_t>(query.words) * kBlockRows;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t block = blocks[i];
    const uint64_t* code = codes + block * stride;
    uint32_t weighted[kBlockRows];
    for (uint32_t row = 0; row < kBlockRows; row += 2)
      vst1_u32(weighted + row, vmovn_u64(weighted_popcounts(code + row, query)));
    uint8_t mask = 0;
    for (uint32_t row = 0; row < kBlockRows; ++row) {
      const uint32_t at = block * kBlockRows + row;
      const float dot = query.base + query.step * static_cast<float>(weighted[row]);
      const float key = offsets[at] + slopes[at] * dot;
      keys[i * kBlockRows + row] = key;
      mask |= static_cast<uint8_t>(!(key >= threshold)) << row;
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

constexpr Kernels kNeon = {"neon",   scan,        dot<Int8>,   dot<Float16>, dot<Float32>,
                          l2<Int8>, l2<Float16>, l2<Float32>, crc32c};

}  // namespace

const Kernels* neon_kernels() { return &kNeon; }

}  // namespace memdb
#else
namespace memdb {
const Kernels* neon_kernels() { return nullptr; }
}  // namespace memdb
#endif
