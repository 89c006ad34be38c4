// Portable kernels: the definition the others are tested against, next to the numpy twins.
#include <cstring>

#include "kernels.h"

namespace memdb {
namespace {

// Sums of table entries of the 32 rows of a block.
void sum_entries(const uint8_t* code, const QueryTables& query, uint32_t* sums) {
  for (uint32_t row = 0; row < kBlockRows; ++row) sums[row] = 0;
  for (uint32_t byte = 0; byte < query.bytes; ++byte, code += kBlockRows) {
    const uint8_t* low = query.entries + static_cast<size_t>(byte) * 2 * kTableEntries;
    const uint8_t* high = low + kTableEntries;
    for (uint32_t row = 0; row < kBlockRows; ++row)
      sums[row] += static_cast<uint32_t>(low[code[row] & 15]) + high[code[row] >> 4];
  }
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
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t block = blocks[i];
    uint32_t sums[kBlockRows];
    sum_entries(codes + static_cast<size_t>(block) * query.bytes * kBlockRows, query, sums);
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

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  uint32_t exponent = (half >> 10) & 0x1f;
  uint32_t mantissa = half & 0x3ff;
  uint32_t bits;
  if (exponent == 0x1f) {
    bits = sign | 0x7f800000u | (mantissa << 13);
  } else if (exponent != 0) {
    bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else if (mantissa == 0) {
    bits = sign;
  } else {  // subnormal: shift until the leading one is implicit
    exponent = 113;
    while (!(mantissa & 0x400)) {
      mantissa <<= 1;
      --exponent;
    }
    bits = sign | (exponent << 23) | ((mantissa & 0x3ff) << 13);
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

float number16(const uint8_t* payload, uint32_t i) {
  uint16_t half;
  std::memcpy(&half, payload + 2 * static_cast<size_t>(i), 2);
  return half_to_float(half);
}

float dot8(const float* query, const uint8_t* payload, uint32_t dim) {
  float sums[4] = {0, 0, 0, 0};
  for (uint32_t i = 0; i < dim; ++i)
    sums[i & 3] += query[i] * static_cast<float>(static_cast<int8_t>(payload[i]));
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

float dot16(const float* query, const uint8_t* payload, uint32_t dim) {
  float sums[4] = {0, 0, 0, 0};
  for (uint32_t i = 0; i < dim; ++i) sums[i & 3] += query[i] * number16(payload, i);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

float l2_8(const float* query, const uint8_t* payload, float scale, uint32_t dim) {
  float sums[4] = {0, 0, 0, 0};
  for (uint32_t i = 0; i < dim; ++i) {
    const float gap = query[i] - scale * static_cast<float>(static_cast<int8_t>(payload[i]));
    sums[i & 3] += gap * gap;
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

float l2_16(const float* query, const uint8_t* payload, float scale, uint32_t dim) {
  float sums[4] = {0, 0, 0, 0};
  for (uint32_t i = 0; i < dim; ++i) {
    const float gap = query[i] - scale * number16(payload, i);
    sums[i & 3] += gap * gap;
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

float number32(const uint8_t* payload, uint32_t i) {
  float value;
  std::memcpy(&value, payload + 4 * static_cast<size_t>(i), 4);
  return value;
}

float dot32(const float* query, const uint8_t* payload, uint32_t dim) {
  float sums[4] = {0, 0, 0, 0};
  for (uint32_t i = 0; i < dim; ++i) sums[i & 3] += query[i] * number32(payload, i);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

float l2_32(const float* query, const uint8_t* payload, float scale, uint32_t dim) {
  float sums[4] = {0, 0, 0, 0};
  for (uint32_t i = 0; i < dim; ++i) {
    const float gap = query[i] - scale * number32(payload, i);
    sums[i & 3] += gap * gap;
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

int32_t dot2(const int8_t* query, const uint8_t* payload, uint32_t bytes) {
  int32_t total = 0;
  for (uint32_t strip = 0; strip < 4; ++strip, query += bytes)
    for (uint32_t i = 0; i < bytes; ++i) total += query[i] * ((payload[i] >> (2 * strip)) & 3);
  return total;
}

uint32_t popcount(uint64_t x) {
  x -= (x >> 1) & 0x5555555555555555ULL;
  x = (x & 0x3333333333333333ULL) + ((x >> 2) & 0x3333333333333333ULL);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
  return static_cast<uint32_t>((x * 0x0101010101010101ULL) >> 56);
}

uint32_t hamming(const uint8_t* a, const uint8_t* b, uint32_t bytes) {
  uint32_t total = 0;
  for (; bytes >= 8; bytes -= 8, a += 8, b += 8) {
    uint64_t left, right;
    std::memcpy(&left, a, 8);
    std::memcpy(&right, b, 8);
    total += popcount(left ^ right);
  }
  for (; bytes > 0; --bytes) total += popcount(static_cast<uint64_t>(*a++ ^ *b++));
  return total;
}

void weigh(const uint8_t* const* codes, uint32_t count, const uint64_t* planes, uint32_t words,
           uint32_t* sums) {
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t total = 0;
    for (uint32_t w = 0; w < words; ++w) {
      uint64_t code;
      std::memcpy(&code, codes[i] + 8 * static_cast<size_t>(w), 8);
      for (uint32_t b = 0; b < kPlanes; ++b)
        total += popcount(code ^ planes[static_cast<size_t>(b) * words + w]) << b;
    }
    sums[i] = total;
  }
}

int32_t dot88(const int8_t* a, const int8_t* b, uint32_t dim) {
  int32_t total = 0;
  for (uint32_t i = 0; i < dim; ++i) total += a[i] * b[i];
  return total;
}

struct CrcTables {
  uint32_t entry[8][256];
  CrcTables() {
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
      entry[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; ++i)
      for (int slice = 1; slice < 8; ++slice)
        entry[slice][i] = (entry[slice - 1][i] >> 8) ^ entry[0][entry[slice - 1][i] & 0xff];
  }
};

uint32_t crc32c(const uint8_t* data, size_t size) {
  static const CrcTables tables;
  uint32_t crc = 0xffffffffu;
  for (; size >= 8; size -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    word ^= crc;
    crc = 0;
    for (int slice = 0; slice < 8; ++slice)
      crc ^= tables.entry[7 - slice][(word >> (8 * slice)) & 0xff];
  }
  for (; size > 0; --size, ++data) crc = (crc >> 8) ^ tables.entry[0][(crc ^ *data) & 0xff];
  return ~crc;
}

constexpr Kernels kScalar = {"scalar", scan,  dot8, dot16,   dot32, l2_8,  l2_16,
                             l2_32,    dot2,  hamming, weigh, dot88, crc32c};

}  // namespace

const Kernels* scalar_kernels() { return &kScalar; }

}  // namespace memdb
