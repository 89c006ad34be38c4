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

QueryTables query_tables(const float* query, uint32_t dim, uint32_t bytes, uint8_t* entries) {
  const uint32_t count = 2 * bytes;
  const auto coordinate = [&](uint32_t i) { return i < dim ? query[i] : 0.0f; };
  const auto range = [&](uint32_t table) {
    float sum = 0.0f;
    for (uint32_t i = 4 * table; i < 4 * table + 4; ++i) sum += std::fabs(coordinate(i));
    return sum;
  };
  float widest = 0.0f;
  double base = 0.0;
  for (uint32_t table = 0; table < count; ++table) {
    const float here = range(table);
    widest = here > widest ? here : widest;
    base -= here;
  }
  const float step = 2.0f * widest / static_cast<float>(kTableMax);
  const float inverse = step > 0.0f ? 1.0f / step : 0.0f;
  for (uint32_t table = 0; table < count; ++table) {
    const float least = range(table);
    for (uint32_t value = 0; value < kTableEntries; ++value) {
      float sum = 0.0f;
      for (uint32_t bit = 0; bit < 4; ++bit) {
        const float part = coordinate(4 * table + bit);
        sum += (value >> bit) & 1 ? part : -part;
      }
      float entry = std::nearbyint((sum + least) * inverse);
      entry = entry < 0.0f ? 0.0f : (entry > kTableMax ? kTableMax : entry);
      entries[static_cast<uint64_t>(table) * kTableEntries + value] = static_cast<uint8_t>(entry);
    }
  }
  return {entries, bytes, static_cast<float>(base), step};
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

namespace {

// The step of the uniform quantiser that loses least of a unit normal, by bits a number: Max,
// "Quantizing for Minimum Distortion", IRE Transactions on Information Theory, 1960, table II.
constexpr double kNormalStep[6] = {0, 1.5958, 0.9957, 0.5860, 0.3352, 0.1881};

// Eight fields of kBits bits, from the low end of `word`, into eight bytes.
template <uint32_t kBits>
uint64_t spread(uint64_t word) {
  constexpr uint64_t four = (1ULL << (4 * kBits)) - 1;
  constexpr uint64_t two = ((1ULL << (2 * kBits)) - 1) * 0x0000000100000001ULL;
  constexpr uint64_t one = ((1ULL << kBits) - 1) * 0x0001000100010001ULL;
  word = (word & four) | ((word & (four << (4 * kBits))) << (32 - 4 * kBits));
  word = (word & two) | ((word & (two << (2 * kBits))) << (16 - 2 * kBits));
  return (word & one) | ((word & (one << kBits)) << (8 - kBits));
}

template <uint32_t kBits>
void unpack_levels(const uint8_t* payload, uint32_t dim, int8_t* numbers) {
  const auto put = [&](uint32_t first, uint64_t word) {
    word = spread<kBits>(word);
    std::memcpy(numbers + first, &word, 8);
  };
  uint32_t first = 0;
  for (; first + 8 <= dim; first += 8, payload += kBits) {
    uint64_t word = 0;
    std::memcpy(&word, payload, kBits);
    put(first, word);
  }
  if (first < dim) {
    uint64_t word = 0;
    std::memcpy(&word, payload, ((dim - first) * kBits + 7) / 8);
    put(first, word);
  }
  const uint32_t whole = (dim + 7) / 8 * 8;
  for (uint32_t i = 0; i < whole; ++i)
    numbers[i] = static_cast<int8_t>(2 * numbers[i] + 1 - (1 << kBits));
}

}  // namespace

Fit quantise_packed(const float* vector, uint32_t dim, uint32_t bits, uint8_t* payload) {
  const uint64_t size = (static_cast<uint64_t>(dim) * bits + 7) / 8;
  std::memset(payload, 0, size);
  double square = 0.0;
  for (uint32_t i = 0; i < dim; ++i) square += static_cast<double>(vector[i]) * vector[i];
  const float norm = static_cast<float>(std::sqrt(square));
  const double step = std::sqrt(square / dim) * kNormalStep[bits];
  if (!(norm > 0.0f) || !(step > 0.0)) return {0.0f, 0.0f};
  const int half = 1 << (bits - 1);
  double product = 0.0;
  for (uint32_t i = 0; i < dim; ++i) {
    double level = std::floor(vector[i] / step) + half;
    level = level < 0.0 ? 0.0 : (level > 2 * half - 1 ? 2 * half - 1 : level);
    const uint32_t stored = static_cast<uint32_t>(level);
    product += (2.0 * stored + 1 - 2 * half) * vector[i];
    const uint64_t bit = static_cast<uint64_t>(i) * bits;
    const uint32_t shifted = stored << (bit % 8);
    payload[bit / 8] |= static_cast<uint8_t>(shifted);
    if (bit % 8 + bits > 8) payload[bit / 8 + 1] |= static_cast<uint8_t>(shifted >> 8);
  }
  return {static_cast<float>(square / product), norm};
}

void unpack(const uint8_t* payload, uint32_t dim, Precision precision, int8_t* numbers) {
  if (precision == Precision::kInt5) return unpack_levels<5>(payload, dim, numbers);
  if (precision == Precision::kInt4) return unpack_levels<4>(payload, dim, numbers);
  if (precision == Precision::kInt2) return unpack_levels<2>(payload, dim, numbers);
  unpack_levels<1>(payload, dim, numbers);
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
