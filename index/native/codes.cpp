#include "codes.h"

#include <cmath>
#include <cstring>

namespace memdb {

void sign_code(const float* residual, uint32_t dim, uint32_t words, uint64_t* code) {
  for (uint32_t w = 0; w < words; ++w) {
    const uint32_t first = w * 64;
    const uint32_t count = dim - first < 64 ? dim - first : 64;
    uint64_t word = 0;
    for (uint32_t i = 0; i < count; ++i)
      word |= static_cast<uint64_t>(residual[first + i] >= 0.0f) << i;
    code[w] = word;
  }
}

namespace {

float largest(const float* x, uint32_t dim) {
  float most = 0.0f;
  for (uint32_t i = 0; i < dim; ++i) {
    const float magnitude = std::fabs(x[i]);
    most = magnitude > most ? magnitude : most;
  }
  return most;
}

}  // namespace

float quantise_query(const float* query, uint32_t dim, uint32_t words, uint64_t* planes) {
  std::memset(planes, 0, sizeof(uint64_t) * kQueryBits * words);
  const float delta = largest(query, dim) / 15.0f;
  if (!(delta > 0.0f)) return 0.0f;
  const float inverse = 0.5f / delta;
  for (uint32_t i = 0; i < dim; ++i) {
    float level = std::nearbyint(query[i] * inverse + 7.5f);
    level = level < 0.0f ? 0.0f : (level > 15.0f ? 15.0f : level);
    const uint64_t bits = static_cast<uint64_t>(level);
    for (uint32_t plane = 0; plane < kQueryBits; ++plane)
      planes[static_cast<uint64_t>(plane) * words + i / 64] |= ((bits >> plane) & 1) << (i % 64);
  }
  return delta;
}

float quantise8(const float* vector, uint32_t dim, int8_t* payload) {
  const float scale = largest(vector, dim) / 127.0f;
  if (!(scale > 0.0f)) {
    std::memset(payload, 0, dim);
    return 0.0f;
  }
  for (uint32_t i = 0; i < dim; ++i) {
    float level = std::nearbyint(vector[i] / scale);
    level = level < -127.0f ? -127.0f : (level > 127.0f ? 127.0f : level);
    payload[i] = static_cast<int8_t>(level);
  }
  return scale;
}

void seal_record(const Kernels& kernels, uint8_t* record, uint64_t size, uint32_t slot) {
  std::memcpy(record, &slot, 4);
  const uint32_t crc = kernels.crc32c(record, size - kRecordTail);
  std::memcpy(record + size - kRecordTail, &crc, 4);
}

bool record_holds(const Kernels& kernels, const uint8_t* record, uint64_t size, uint32_t slot) {
  uint32_t stored_slot, stored_crc;
  std::memcpy(&stored_slot, record, 4);
  std::memcpy(&stored_crc, record + size - kRecordTail, 4);
  return stored_slot == slot && stored_crc == kernels.crc32c(record, size - kRecordTail);
}

}  // namespace memdb
