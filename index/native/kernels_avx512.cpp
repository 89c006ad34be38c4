// AVX-512 kernels: 16 floats a step.
#include "kernels.h"

#if defined(__AVX512F__) && (defined(__AVX512VPOPCNTDQ__) || defined(_MSC_VER))
#include <immintrin.h>

namespace memdb {
namespace {

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

}  // namespace

// Scans are those of AVX2: at a nanosecond a row they wait for memory already.
const Kernels* avx512_kernels() {
  const Kernels& narrow = *avx2_kernels();
  static const Kernels table = {"avx512",     narrow.scan,    dot<Int8>,    dot<Float16>,
                                dot<Float32>, l2<Int8>,       l2<Float16>,  l2<Float32>,
                                narrow.dot2,  narrow.hamming, narrow.weigh, narrow.dot88,
                                narrow.crc32c};
  return &table;
}

}  // namespace memdb
#else
namespace memdb {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace memdb
#endif
