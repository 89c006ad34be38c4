// Quantisers: vectors to sign codes and payloads, queries to tables, records to seals.
#pragma once
#include <cstdint>

#include "kernels.h"

namespace memdb {

// Bits a coordinate of a record's payload; the value is the number that files store.
enum class Precision : uint32_t {
  kInt8 = 0,
  kFloat16 = 1,
  kInt5 = 2,
  kInt4 = 3,
  kInt2 = 4,
  kBits = 5,  // of a Hamming space: the vector itself
  kInt1 = 6,
};
constexpr uint32_t kPrecisions = 7;

constexpr uint32_t bits_of(Precision precision) {
  switch (precision) {
    case Precision::kInt8: return 8;
    case Precision::kFloat16: return 16;
    case Precision::kInt5: return 5;
    case Precision::kInt4: return 4;
    case Precision::kInt2: return 2;
    case Precision::kBits: return 1;
    case Precision::kInt1: return 1;
  }
  return 0;
}

// Whether a payload is a bit stream of levels: coordinate i is 2 * level + 1 - 2^bits.
constexpr bool is_packed(Precision precision) {
  return precision == Precision::kInt5 || precision == Precision::kInt4 ||
         precision == Precision::kInt2 || precision == Precision::kInt1;
}

constexpr uint64_t payload_bytes(uint32_t dim, Precision precision) {
  return (static_cast<uint64_t>(dim) * bits_of(precision) + 7) / 8;
}

// Sign bits of a centred, rotated vector: bit i is set where residual[i] >= 0. Bits past dim are 0.
void sign_code(const float* residual, uint32_t dim, uint32_t words, uint64_t* code);

// (2 * bytes, kTableEntries) entries of a query, bytes >= dim / 8; sets base and step.
QueryTables query_tables(const float* query, uint32_t dim, uint32_t bytes, uint8_t* entries);

// payload[i] = round(vector[i] / scale), |payload| <= 127; returns the scale, 0 for a zero vector.
float quantise8(const float* vector, uint32_t dim, int8_t* payload);

struct Fit {
  float scale;  // <vector, q> is about scale * <numbers, q>, without bias
  float norm;   // length of the vector
};

// Packs a vector in levels of `bits` (1, 2, 4 or 5), steps as fit a normal distribution best.
Fit quantise_packed(const float* vector, uint32_t dim, uint32_t bits, uint8_t* payload);

// The numbers of a packed payload: dim int8, written in whole groups of 8.
void unpack(const uint8_t* payload, uint32_t dim, Precision precision, int8_t* numbers);

void seal_record(const Kernels& kernels, uint8_t* record, uint64_t size, uint32_t slot);
bool record_holds(const Kernels& kernels, const uint8_t* record, uint64_t size, uint32_t slot);

}  // namespace memdb
