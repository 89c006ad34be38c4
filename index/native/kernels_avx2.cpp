// AVX2 kernels: popcounts by nibble look-up, accumulated in bytes; 8 floats a step.
#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <cstring>

namespace memdb {
namespace {

inline __m256i popcount_bytes(__m256i x) {
  const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                          0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i low = _mm256_set1_epi8(0x0f);
  const __m256i below = _mm256_shuffle_epi8(counts, _mm256_and_si256(x, low));
  const __m256i above =
      _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16(x, 4), low));
  return _mm256_add_epi8(below, above);
}

// sum_j 2^j * popcount(code ^ plane_j) of four rows, as four u64.
inline __m256i weighted_popcounts(const uint64_t* code, const QueryPlanes& query) {
  const uint32_t words = query.words;
  const __m256i zero = _mm256_setzero_si256();
  __m256i total = zero;
  for (uint32_t first = 0; first < words; first += kByteAccumulations) {
    const uint32_t last = first + kByteAccumulations < words ? first + kByteAccumulations : words;
    __m256i sums[kQueryBits] = {zero, zero, zero, zero};
    for (uint32_t w = first; w < last; ++w) {
      const __m256i rows =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(code + w * kBlockRows));
      for (uint32_t plane = 0; plane < kQueryBits; ++plane) {
        const __m256i bits = _mm256_set1_epi64x(
            static_cast<long long>(query.planes[static_cast<size_t>(plane) * words + w]));
        sums[plane] =
            _mm256_add_epi8(sums[plane], popcount_bytes(_mm256_xor_si256(rows, bits)));
      }
    }
    for (uint32_t plane = 0; plane < kQueryBits; ++plane)
      total = _mm256_add_epi64(
          total, _mm256_slli_epi64(_mm256_sad_epu8(sums[plane], zero), static_cast<int>(plane)));
  }
  return total;
}

void scan(const uint64_t* codes, const float* offsets, const float* slopes,
          const uint8_t* allowed, const uint16_t* blocks, uint32_t count,
          const QueryPlanes& query, float threshold, float* keys, uint8_t* masks) {
  const size_t stride = static_cast<size_t>(query.words) * kBlockRows;
  const __m256 base = _mm256_set1_ps(query.base);
  const __m256 step = _mm256_set1_ps(query.step);
  const __m256 limit = _mm256_set1_ps(threshold);
  const __m256i low_words = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t block = blocks[i];
    if (i + 4 < count)
      for (size_t line = 0; line < stride; line += 8)
        _mm_prefetch(reinterpret_cast<const char*>(codes + blocks[i + 4] * stride + line),
                     _MM_HINT_T0);
    const uint64_t* code = codes + block * stride;
    const __m256i front = weighted_popcounts(code, query);
    const __m256i back = weighted_popcounts(code + 4, query);
    const __m256i packed = _mm256_blend_epi32(_mm256_permutevar8x32_epi32(front, low_words),
                                              _mm256_permutevar8x32_epi32(back, low_words), 0xf0);
    const __m256 dot =
        _mm256_add_ps(base, _mm256_mul_ps(step, _mm256_cvtepi32_ps(packed)));
    const __m256 key =
        _mm256_add_ps(_mm256_loadu_ps(offsets + block * kBlockRows),
                      _mm256_mul_ps(_mm256_loadu_ps(slopes + block * kBlockRows), dot));
    _mm256_storeu_ps(keys + i * kBlockRows, key);
    const int mask = _mm256_movemask_ps(_mm256_cmp_ps(key, limit, _CMP_NGE_UQ));
    masks[i] = static_cast<uint8_t>(mask) & allowed[block];
  }
}

inline float sum(__m256 x) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

struct Int8 {
  static __m256 load8(const uint8_t* payload, uint32_t i) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(payload + i));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }
  static float load1(const uint8_t* payload, uint32_t i) {
    return static_cast<float>(static_cast<int8_t>(payload[i]));
  }
};

struct Float16 {
  static __m256 load8(const uint8_t* payload, uint32_t i) {
    return _mm256_cvtph_ps(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(payload + 2 * static_cast<size_t>(i))));
  }
  static float load1(const uint8_t* payload, uint32_t i) {
    uint16_t half;
    std::memcpy(&half, payload + 2 * static_cast<size_t>(i), 2);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
  }
};

struct Float32 {
  static __m256 load8(const uint8_t* payload, uint32_t i) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(payload) + i);
  }
  static float load1(const uint8_t* payload, uint32_t i) {
    return reinterpret_cast<const float*>(payload)[i];
  }
};

template <class Number>
float dot(const float* query, const uint8_t* payload, uint32_t dim) {
  __m256 first = _mm256_setzero_ps(), second = _mm256_setzero_ps();
  uint32_t i = 0;
  for (; i + 16 <= dim; i += 16) {
    first = _mm256_fmadd_ps(_mm256_loadu_ps(query + i), Number::load8(payload, i), first);
    second = _mm256_fmadd_ps(_mm256_loadu_ps(query + i + 8), Number::load8(payload, i + 8), second);
  }
  float total = sum(_mm256_add_ps(first, second));
  for (; i < dim; ++i) total += query[i] * Number::load1(payload, i);
  return total;
}

template <class Number>
float l2(const float* query, const uint8_t* payload, float scale, uint32_t dim) {
  const __m256 scales = _mm256_set1_ps(scale);
  __m256 first = _mm256_setzero_ps(), second = _mm256_setzero_ps();
  uint32_t i = 0;
  for (; i + 16 <= dim; i += 16) {
    const __m256 a =
        _mm256_fnmadd_ps(scales, Number::load8(payload, i), _mm256_loadu_ps(query + i));
    const __m256 b =
        _mm256_fnmadd_ps(scales, Number::load8(payload, i + 8), _mm256_loadu_ps(query + i + 8));
    first = _mm256_fmadd_ps(a, a, first);
    second = _mm256_fmadd_ps(b, b, second);
  }
  float total = sum(_mm256_add_ps(first, second));
  for (; i < dim; ++i) {
    const float gap = query[i] - scale * Number::load1(payload, i);
    total += gap * gap;
  }
  return total;
}

uint32_t crc32c(const uint8_t* data, size_t size) {
  uint64_t crc = 0xffffffffu;
  for (; size >= 8; size -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    crc = _mm_crc32_u64(crc, word);
  }
  uint32_t rest = static_cast<uint32_t>(crc);
  for (; size > 0; --size, ++data) rest = _mm_crc32_u8(rest, *data);
  return ~rest;
}

constexpr Kernels kAvx2 = {"avx2",   scan,        dot<Int8>,   dot<Float16>, dot<Float32>,
                          l2<Int8>, l2<Float16>, l2<Float32>, crc32c};

}  // namespace

const Kernels* avx2_kernels() { return &kAvx2; }

}  // namespace memdb
#else
namespace memdb {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace memdb
#endif
