// What agreement.cpp is run on: bytes, codes and records, the same in every run.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "codes.h"
#include "kernels.h"
#include "score.h"

namespace memdb {

inline uint64_t state = 1;

inline uint64_t next_number() {  // SplitMix64
  state += 0x9E3779B97F4A7C15ULL;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

inline float next_float() { return static_cast<float>(next_number() >> 40) / 8388608.0f - 1.0f; }

inline std::vector<uint8_t> random_bytes(size_t size) {
  std::vector<uint8_t> bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(next_number());
  return bytes;
}

inline std::vector<float> random_floats(size_t size) {
  std::vector<float> floats(size);
  for (float& number : floats) number = next_float();
  return floats;
}

// Groups of random codes whose factors are ordinary numbers.
inline std::vector<uint8_t> random_groups(uint32_t code_bytes, uint32_t count) {
  std::vector<uint8_t> groups = random_bytes(group_bytes(code_bytes) * count);
  for (uint32_t group = 0; group < count; ++group) {
    uint8_t* factors = groups.data() + group_bytes(code_bytes) * (group + 1) - 4 * kGroupRows;
    for (uint32_t i = 0; i < 2 * kGroupRows; ++i) {
      const float factor = next_float();
      uint32_t word;
      std::memcpy(&word, &factor, 4);
      const uint16_t upper = static_cast<uint16_t>(word >> 16);
      std::memcpy(factors + 2 * static_cast<size_t>(i), &upper, 2);
    }
  }
  return groups;
}

inline std::vector<uint8_t> random_records(const Kernels& kernels, uint32_t dim,
                                           Precision precision, uint32_t count) {
  const uint64_t size = kRecordHead + payload_bytes(dim, precision) + kRecordTail;
  std::vector<uint8_t> records(size * count);
  for (uint32_t slot = 0; slot < count; ++slot) {
    uint8_t* record = records.data() + slot * size;
    const float factors[2] = {0.01f, 1.0f};
    std::memcpy(record + 4, factors, 8);
    for (uint64_t i = 0; i < size - kRecordHead - kRecordTail; ++i)
      record[kRecordHead + i] = static_cast<uint8_t>(next_number() & 0x3f);
    seal_record(kernels, record, size, slot);
  }
  return records;
}

// Records of 8 bits that lie about the origin, with their own lengths.
inline std::vector<uint8_t> scattered_records(const Kernels& kernels, uint32_t dim,
                                              uint32_t count) {
  std::vector<uint8_t> records = random_records(kernels, dim, Precision::kInt8, count);
  const uint64_t size = records.size() / count;
  for (uint32_t slot = 0; slot < count; ++slot) {
    uint8_t* record = records.data() + slot * size;
    float square = 0.0f;
    for (uint64_t i = kRecordHead; i < size - kRecordTail; ++i) {
      const int number = record[i] - 32;
      record[i] = static_cast<uint8_t>(number);
      square += static_cast<float>(number * number);
    }
    const float factors[2] = {0.01f, 0.01f * std::sqrt(square)};
    std::memcpy(record + 4, factors, 8);
    seal_record(kernels, record, size, slot);
  }
  return records;
}

}  // namespace memdb
