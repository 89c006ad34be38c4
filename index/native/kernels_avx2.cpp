// AVX2 kernels: table look-ups by byte shuffles, 32 rows at once; 8 floats a step.
#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <cstring>

namespace memdb {
namespace {

// 16-bit sums of the entries of a block's 32 rows, while they are being added.
struct Narrow {
  __m256i all = _mm256_setzero_si256();   // even rows, plus 256 times odd rows, modulo 2^16
  __m256i high = _mm256_setzero_si256();  // odd rows

  void add(__m256i entries) {
    all = _mm256_add_epi16(all, entries);
    high = _mm256_add_epi16(high, _mm256_srli_epi16(entries, 8));
  }
};

// 32-bit sums: rows 0-7, 8-15, 16-23, 24-31.
struct Wide {
  __m256i eight[4];

  void add(const Narrow& sums) {
    const __m256i even = _mm256_sub_epi16(sums.all, _mm256_slli_epi16(sums.high, 8));
    const __m256i front = _mm256_unpacklo_epi16(even, sums.high);  // rows 0-7 and 16-23
    const __m256i back = _mm256_unpackhi_epi16(even, sums.high);   // rows 8-15 and 24-31
    const __m128i rows[4] = {_mm256_castsi256_si128(front), _mm256_castsi256_si128(back),
                             _mm256_extracti128_si256(front, 1),
                             _mm256_extracti128_si256(back, 1)};
    for (int i = 0; i < 4; ++i)
      eight[i] = _mm256_add_epi32(eight[i], _mm256_cvtepu16_epi32(rows[i]));
  }
};

inline __m256i table(const uint8_t* entries) {
  return _mm256_broadcastsi128_si256(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(entries)));
}

// What one byte of 32 rows selects from its two tables.
inline __m256i look_up(const uint8_t* code, __m256i low_table, __m256i high_table) {
  const __m256i half = _mm256_set1_epi8(0x0f);
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(code));
  const __m256i low = _mm256_shuffle_epi8(low_table, _mm256_and_si256(bytes, half));
  const __m256i high = _mm256_shuffle_epi8(
      high_table, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), half));
  return _mm256_add_epi8(low, high);
}

// Sums of kBlocks blocks side by side, so that a table is loaded once for all of them. The blocks
// that come `next` are fetched line by line meanwhile: all at once they would wait for each other.
template <int kBlocks>
inline void sum_entries(const uint8_t* const* code, const uint8_t* const* next,
                        const QueryTables& query, Wide* sums) {
  for (int i = 0; i < kBlocks; ++i)
    for (__m256i& eight : sums[i].eight) eight = _mm256_setzero_si256();
  for (uint32_t first = 0; first < query.bytes; first += kNarrowBytes) {
    const uint32_t last =
        first + kNarrowBytes < query.bytes ? first + kNarrowBytes : query.bytes;
    Narrow narrow[kBlocks];
    for (uint32_t byte = first; byte < last; byte += 2) {
      const uint8_t* entries = query.entries + static_cast<size_t>(byte) * 2 * kTableEntries;
      const __m256i table0 = table(entries), table1 = table(entries + kTableEntries);
      const __m256i table2 = table(entries + 2 * kTableEntries);
      const __m256i table3 = table(entries + 3 * kTableEntries);
      for (int i = 0; i < kBlocks; ++i) {
        const size_t offset = static_cast<size_t>(byte) * kBlockRows;
        const uint8_t* at = code[i] + offset;
        _mm_prefetch(reinterpret_cast<const char*>(next[i] + offset), _MM_HINT_T0);
        narrow[i].add(_mm256_add_epi8(look_up(at, table0, table1),
                                      look_up(at + kBlockRows, table2, table3)));
      }
    }
    for (int i = 0; i < kBlocks; ++i) sums[i].add(narrow[i]);
  }
}

// Keys of one block; returns the rows that are below the threshold.
inline uint32_t keys_of(const Wide& sums, const uint32_t* factors, const QueryTables& query,
                        float threshold, float* keys) {
  const __m256 base = _mm256_set1_ps(query.base), step = _mm256_set1_ps(query.step);
  const __m256 limit = _mm256_set1_ps(threshold);
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  uint32_t mask = 0;
  for (int i = 0; i < 4; ++i) {
    const __m256 dot =
        _mm256_add_ps(base, _mm256_mul_ps(step, _mm256_cvtepi32_ps(sums.eight[i])));
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(factors + 8 * i));
    const __m256 offset = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
    const __m256 slope = _mm256_castsi256_ps(_mm256_and_si256(words, upper));
    const __m256 key = _mm256_add_ps(offset, _mm256_mul_ps(slope, dot));
    _mm256_storeu_ps(keys + 8 * i, key);
    const int below = _mm256_movemask_ps(_mm256_cmp_ps(key, limit, _CMP_NGE_UQ));
    mask |= static_cast<uint32_t>(below) << (8 * i);
  }
  return mask;
}

void scan(const uint8_t* codes, const uint32_t* factors, const uint32_t* allowed,
          const uint16_t* blocks, uint32_t count, const QueryTables& query, float threshold,
          float* keys, uint32_t* masks) {
  const size_t stride = static_cast<size_t>(query.bytes) * kBlockRows;
  for (uint32_t i = 0; i < count; i += 2) {
    const uint32_t pair = i + 1 < count ? 2 : 1;
    const uint8_t *code[2], *next[2];
    for (uint32_t j = 0; j < 2; ++j) {
      code[j] = codes + blocks[i + j < count ? i + j : i] * stride;
      next[j] = i + 2 + j < count ? codes + blocks[i + 2 + j] * stride : code[j];
    }
    Wide sums[2];
    if (pair == 2)
      sum_entries<2>(code, next, query, sums);
    else
      sum_entries<1>(code, next, query, sums);
    for (uint32_t j = 0; j < pair; ++j) {
      const size_t row = static_cast<size_t>(blocks[i + j]) * kBlockRows;
      const uint32_t below =
          keys_of(sums[j], factors + row, query, threshold, keys + (i + j) * kBlockRows);
      masks[i + j] = below & allowed[blocks[i + j]];
    }
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

int32_t dot2(const int8_t* query, const uint8_t* payload, uint32_t bytes) {
  const __m256i two_bits = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
  __m256i total = _mm256_setzero_si256();
  uint32_t i = 0;
  for (; i + 32 <= bytes; i += 32) {
    const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(payload + i));
    __m256i sums = _mm256_setzero_si256();  // of at most 4 * 2 * 3 * 127
    for (int strip = 0; strip < 4; ++strip) {
      const __m256i levels =
          _mm256_and_si256(_mm256_srli_epi16(packed, 2 * strip), two_bits);
      const auto* numbers = query + static_cast<size_t>(strip) * bytes + i;
      sums = _mm256_add_epi16(
          sums, _mm256_maddubs_epi16(
                    levels, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(numbers))));
    }
    total = _mm256_add_epi32(total, _mm256_madd_epi16(sums, ones));
  }
  __m128i half =
      _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  int32_t sum = _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
  for (; i < bytes; ++i)
    for (uint32_t strip = 0; strip < 4; ++strip)
      sum += query[static_cast<size_t>(strip) * bytes + i] * ((payload[i] >> (2 * strip)) & 3);
  return sum;
}

uint32_t hamming(const uint8_t* a, const uint8_t* b, uint32_t bytes) {
  uint64_t total = 0;
  for (; bytes >= 8; bytes -= 8, a += 8, b += 8) {
    uint64_t left, right;
    std::memcpy(&left, a, 8);
    std::memcpy(&right, b, 8);
    total += static_cast<uint64_t>(_mm_popcnt_u64(left ^ right));
  }
  for (; bytes > 0; --bytes) total += static_cast<uint64_t>(_mm_popcnt_u32(*a++ ^ *b++));
  return static_cast<uint32_t>(total);
}

// The number of words is a constant where it is a usual one, so that the loop is unrolled.
template <uint32_t kWords>
void weigh_words(const uint8_t* const* codes, uint32_t count, const uint64_t* planes,
                 uint32_t words, uint32_t* sums) {
  const uint32_t size = kWords ? kWords : words;
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t totals[kPlanes] = {};
    for (uint32_t w = 0; w < size; ++w) {
      uint64_t code;
      std::memcpy(&code, codes[i] + 8 * static_cast<size_t>(w), 8);
      for (uint32_t b = 0; b < kPlanes; ++b)
        totals[b] += static_cast<uint64_t>(
            _mm_popcnt_u64(code ^ planes[static_cast<size_t>(b) * size + w]));
    }
    uint64_t total = 0;
    for (uint32_t b = 0; b < kPlanes; ++b) total += totals[b] << b;
    sums[i] = static_cast<uint32_t>(total);
  }
}

void weigh(const uint8_t* const* codes, uint32_t count, const uint64_t* planes, uint32_t words,
           uint32_t* sums) {
  switch (words) {
    case 2: return weigh_words<2>(codes, count, planes, words, sums);
    case 4: return weigh_words<4>(codes, count, planes, words, sums);
    case 6: return weigh_words<6>(codes, count, planes, words, sums);
    case 12: return weigh_words<12>(codes, count, planes, words, sums);
    default: return weigh_words<0>(codes, count, planes, words, sums);
  }
}

int32_t dot88(const int8_t* a, const int8_t* b, uint32_t dim) {
  __m256i first = _mm256_setzero_si256(), second = _mm256_setzero_si256();
  const auto load = [](const int8_t* at) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  };
  uint32_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    first = _mm256_add_epi32(first, _mm256_madd_epi16(load(a + i), load(b + i)));
    second = _mm256_add_epi32(second, _mm256_madd_epi16(load(a + i + 16), load(b + i + 16)));
  }
  first = _mm256_add_epi32(first, second);
  __m128i half =
      _mm_add_epi32(_mm256_castsi256_si128(first), _mm256_extracti128_si256(first, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  int32_t total = _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
  for (; i < dim; ++i) total += a[i] * b[i];
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

constexpr Kernels kAvx2 = {"avx2",      scan,        dot<Int8>,   dot<Float16>,
                           dot<Float32>, l2<Int8>,   l2<Float16>, l2<Float32>,
                           dot2,         hamming,    weigh,       dot88,      crc32c};

}  // namespace

const Kernels* avx2_kernels() { return &kAvx2; }

}  // namespace memdb
#else
namespace memdb {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace memdb
#endif
