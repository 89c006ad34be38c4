// Quantisers: vectors to sign codes and 8-bit payloads, queries to bit planes, records to seals.
#pragma once
#include <cstdint>

#include "kernels.h"

namespace memdb {

// Sign bits of a centred, rotated vector: bit i is set where residual[i] >= 0. Bits past dim are 0.
void sign_code(const float* residual, uint32_t dim, uint32_t words, uint64_t* code);

// (kQueryBits, words) planes of a query; returns delta, half the distance of two levels.
float quantise_query(const float* query, uint32_t dim, uint32_t words, uint64_t* planes);

// payload[i] = round(vector[i] / scale), |payload| <= 127; returns the scale, 0 for a zero vector.
float quantise8(const float* vector, uint32_t dim, int8_t* payload);

void seal_record(const Kernels& kernels, uint8_t* record, uint64_t size, uint32_t slot);
bool record_holds(const Kernels& kernels, const uint8_t* record, uint64_t size, uint32_t slot);

}  // namespace memdb
