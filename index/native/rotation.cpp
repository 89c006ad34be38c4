#include "rotation.h"

namespace memdb {
namespace {

uint32_t power_of_two_within(uint32_t dim) {
  uint32_t size = 1;
  while (size <= dim / 2) size *= 2;
  return size;
}

// Orthonormal Hadamard transform, its own inverse. `size` is a power of two.
void hadamard(float* x, uint32_t size) {
  float scale = 1.0f;
  for (uint32_t half = 1; half < size; half *= 2) {
    for (uint32_t start = 0; start < size; start += 2 * half) {
      float* low = x + start;
      float* high = low + half;
      for (uint32_t i = 0; i < half; ++i) {
        const float a = low[i], b = high[i];
        low[i] = a + b;
        high[i] = a - b;
      }
    }
    scale *= 0.70710678118654752f;
  }
  for (uint32_t i = 0; i < size; ++i) x[i] *= scale;
}

// Pairs coordinate i with i + ceil(dim / 2): an orthonormal mix of the halves, its own inverse.
void mix_halves(float* x, uint32_t dim) {
  constexpr float scale = 0.70710678118654752f;
  const uint32_t half = dim / 2;
  float* high = x + (dim - half);
  for (uint32_t i = 0; i < half; ++i) {
    const float a = x[i], b = high[i];
    x[i] = (a + b) * scale;
    high[i] = (a - b) * scale;
  }
}

}  // namespace

void rotate(float* x, const float* signs, uint32_t dim) {
  const uint32_t size = power_of_two_within(dim);
  for (uint32_t round = 0; round < kRotationRounds; ++round) {
    const float* flips = signs + static_cast<uint64_t>(round) * dim;
    for (uint32_t i = 0; i < dim; ++i) x[i] *= flips[i];
    hadamard(x + (round % 2 ? dim - size : 0), size);
    if (size != dim) mix_halves(x, dim);
  }
}

void rotate_back(float* x, const float* signs, uint32_t dim) {
  const uint32_t size = power_of_two_within(dim);
  for (uint32_t round = kRotationRounds; round-- > 0;) {
    const float* flips = signs + static_cast<uint64_t>(round) * dim;
    if (size != dim) mix_halves(x, dim);
    hadamard(x + (round % 2 ? dim - size : 0), size);
    for (uint32_t i = 0; i < dim; ++i) x[i] *= flips[i];
  }
}

}  // namespace memdb
