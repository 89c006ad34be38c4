// The random rotation of RaBitQ in O(d log d): four rounds of random signs, a Hadamard transform
// of the first or the last 2^m coordinates in turn, and a Kac step that mixes the two halves.
#pragma once
#include <cstdint>

namespace memdb {

constexpr uint32_t kRotationRounds = 4;

// In place. `signs` is (kRotationRounds, dim) of +1 and -1. Orthogonal for every dim >= 1.
void rotate(float* x, const float* signs, uint32_t dim);
void rotate_back(float* x, const float* signs, uint32_t dim);

}  // namespace memdb
