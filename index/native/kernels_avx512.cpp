// AVX-512 kernels: one register holds a word of all 8 rows of a block, VPOPCNTDQ counts it.
#include "kernels.h"

#if defined(__AVX512F__) && (defined(__AVX512VPOPCNTDQ__) || defined(_MSC_VER))
#include <immintrin.h>

#include <cstring>

namespace memdb {
namespace {

inline __m512i differing(__m512i rows, uint64_t bits) {
  return _mm512_popcnt_epi64(
      _mm512_xor_si512(rows, _mm512_set1_epi64(static_cast<long long>(bits))));
}

void scan(const uint64_t* codes, const float* offsets, const float* slopes,
          const uint8_t* allowed, const uint16_t* blocks, uint32_t count,
          const QueryPlanes& query, float threshold, float* keys, uint8_t* masks) {
  const uint32_t words = query.words;
  const size_t stride = static_cast<size_t>(words) * kBlockRows;
  const uint64_t* plane0 = query.planes;
  const uint64_t* plane1 = plane0 + words;
  const uint64_t* plane2 = plane1 + words;
  const uint64_t* plane3 = plane2 + words;
  const __m256 base = _mm256_set1_ps(query.base);
  const __m256 step = _mm256_set1_ps(query.step);
  const __m256 limit = _mm256_set1_ps(threshold);
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t block = blocks[i];
    if (i + 8 < count) {
      const uint64_t* ahead = codes + blocks[i + 8] * stride;
      for (size_t line = 0; line < stride; line += 8)
        _mm_prefetch(reinterpret_cast<const char*>(ahead + line), _MM_HINT_T0);
    }
    const uint64_t* code = codes + block * stride;
    __m512i sum0 = _mm512_setzero_si512(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    for (uint32_t w = 0; w < words; ++w) {
      const __m512i rows = _mm512_loadu_si512(code + w * kBlockRows);
      sum0 = _mm512_add_epi64(sum0, differing(rows, plane0[w]));
      sum1 = _mm512_add_epi64(sum1, differing(rows, plane1[w]));
      sum2 = _mm512_add_epi64(sum2, differing(rows, plane2[w]));
      sum3 = _mm512_add_epi64(sum3, differing(rows, plane3[w]));
    }
    const __m512i low = _mm512_add_epi64(sum0, _mm512_slli_epi64(sum1, 1));
    const __m512i high = _mm512_add_epi64(sum2, _mm512_slli_epi64(sum3, 1));
    const __m512i weighted = _mm512_add_epi64(low, _mm512_slli_epi64(high, 2));
    const __m256 floats = _mm256_cvtepi32_ps(_mm512_cvtepi64_epi32(weighted));
    const __m256 dot = _mm256_add_ps(base, _mm256_mul_ps(step, floats));
    const __m256 key =
        _mm256_add_ps(_mm256_loadu_ps(offsets + block * kBlockRows),
                      _mm256_mul_ps(_mm256_loadu_ps(slopes + block * kBlockRows), dot));
    _mm256_storeu_ps(keys + i * kBlockRows, key);
    const __mmask8 mask = _mm256_cmp_ps_mask(key, limit, _CMP_NGE_UQ);
    masks[i] = static_cast<uint8_t>(mask) & allowed[block];
  }
}

struct Int8 {
  static __m512 load(__mmask16 lanes, const uint8_t* payload, uint32_t i) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, payload + i)));
  }
};

struct Float16 {
  static __m512 load(__mmask16 lanes, const uint8_t* payload, uint32_t i) {
    return _mm512_cvtph_ps(
        _mm256_maskz_loadu_epi16(lanes, payload + 2 * static_cast<size_t>(i)));
  }
};

struct Float32 {
  static __m512 load(__mmask16 lanes, const uint8_t* payload, uint32_t i) {
    return _mm512_maskz_loadu_ps(lanes, reinterpret_cast<const float*>(payload) + i);
  }
};

inline __mmask16 lanes_left(uint32_t i, uint32_t dim) {
  return i + 16 <= dim ? static_cast<__mmask16>(0xffff)
                       : static_cast<__mmask16>((1u << (dim - i)) - 1);
}

template <class Number>
float dot(const float* query, const uint8_t* payload, uint32_t dim) {
  __m512 first = _mm512_setzero_ps(), second = _mm512_setzero_ps();
  uint32_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    first = _mm512_fmadd_ps(_mm512_loadu_ps(query + i), Number::load(0xffff, payload, i), first);
    second = _mm512_fmadd_ps(_mm512_loadu_ps(query + i + 16),
                             Number::load(0xffff, payload, i + 16), second);
  }
  for (; i < dim; i += 16) {
    const __mmask16 lanes = lanes_left(i, dim);
    first = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(lanes, query + i),
                            Number::load(lanes, payload, i), first);
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(first, second));
}

template <class Number>
float l2(const float* query, const uint8_t* payload, float scale, uint32_t dim) {
  const __m512 scales = _mm512_set1_ps(scale);
  __m512 first = _mm512_setzero_ps(), second = _mm512_setzero_ps();
  uint32_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    const __m512 a = _mm512_fnmadd_ps(scales, Number::load(0xffff, payload, i),
                                      _mm512_loadu_ps(query + i));
    const __m512 b = _mm512_fnmadd_ps(scales, Number::load(0xffff, payload, i + 16),
                                      _mm512_loadu_ps(query + i + 16));
    first = _mm512_fmadd_ps(a, a, first);
    second = _mm512_fmadd_ps(b, b, second);
  }
  for (; i < dim; i += 16) {
    const __mmask16 lanes = lanes_left(i, dim);
    const __m512 gap = _mm512_fnmadd_ps(scales, Number::load(lanes, payload, i),
                                        _mm512_maskz_loadu_ps(lanes, query + i));
    first = _mm512_fmadd_ps(gap, gap, first);
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(first, second));
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

constexpr Kernels kAvx512 = {"avx512",   scan,        dot<Int8>,   dot<Float16>, dot<Float32>,
                          l2<Int8>, l2<Float16>, l2<Float32>, crc32c};

}  // namespace

const Kernels* avx512_kernels() { return &kAvx512; }

}  // namespace memdb
#else
namespace memdb {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace memdb
#endif
