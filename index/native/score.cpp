#include "score.h"

#include <cmath>
#include <cstring>

namespace memdb {

Scorer::Scorer(const Kernels& kernels, const Records& records, const float* query)
    : kernels_(kernels), records_(records), query_(query) {
  const uint32_t dim = records.dim;
  square_ = kernels.dot32(query, reinterpret_cast<const uint8_t*>(query), dim);
  const uint64_t bytes = payload_bytes(dim, records.precision);
  if (is_packed(records.precision)) numbers_.resize((dim + 7) / 8 * 8);
  if (records.precision == Precision::kBits) {
    bits_.assign(bytes, 0);
    for (uint32_t i = 0; i < dim; ++i)
      bits_[i / 8] |= static_cast<uint8_t>((query[i] > 0.5f) << (i % 8));
  }
  if (records.precision == Precision::kInt1) {
    std::vector<int8_t> one_by_one(8 * bytes, 0);
    step_ = quantise8(query, dim, one_by_one.data());
    sums_.assign(256 * bytes, 0);
    int32_t total = 0;
    for (uint64_t i = 0; i < 8 * bytes; ++i) {
      int16_t* const table = sums_.data() + 256 * (i / 8);
      const uint32_t bit = 1u << (i % 8);
      for (uint32_t v = 0; v < bit; ++v)
        table[bit + v] = static_cast<int16_t>(table[v] + one_by_one[i]);
      total += one_by_one[i];
    }
    sum_ = static_cast<float>(total);
  }
  if (records.precision != Precision::kInt2) return;
  std::vector<int8_t> levels(4 * bytes, 0);
  step_ = quantise8(query, dim, levels.data());
  strips_.resize(4 * bytes);
  int32_t sum = 0;
  for (uint64_t i = 0; i < 4 * bytes; ++i) {
    strips_[(i % 4) * bytes + i / 4] = levels[i];
    sum += levels[i];
  }
  sum_ = static_cast<float>(sum);
}

float Scorer::from_product(const uint8_t* record, float product) const {
  float scale, norm;
  std::memcpy(&scale, record + 4, 4);
  std::memcpy(&norm, record + 8, 4);
  if (records_.metric == Metric::kInnerProduct) return -(product * scale);
  if (records_.metric == Metric::kCosine)
    return norm > 0.0f ? 1.0f - product * (scale / norm) : 1.0f;
  const float squared = (norm * norm + square_) - 2.0f * (product * scale);
  return squared < 0.0f ? 0.0f : squared;
}

float Scorer::distance(const uint8_t* record) {
  const uint8_t* payload = record + kRecordHead;
  const uint32_t dim = records_.dim;
  if (records_.precision == Precision::kBits)
    return static_cast<float>(
        kernels_.hamming(bits_.data(), payload, static_cast<uint32_t>(bits_.size())));
  if (is_packed(records_.precision)) {
    unpack(payload, dim, records_.precision, numbers_.data());
    const auto* numbers = reinterpret_cast<const uint8_t*>(numbers_.data());
    return from_product(record, kernels_.dot8(query_, numbers, dim));
  }
  const bool bytes = records_.precision == Precision::kInt8;
  if (records_.metric == Metric::kSquaredL2) {  // by differences: near neighbours of long vectors
    float scale;
    std::memcpy(&scale, record + 4, 4);
    return (bytes ? kernels_.l2_8 : kernels_.l2_16)(query_, payload, scale, dim);
  }
  return from_product(record, (bytes ? kernels_.dot8 : kernels_.dot16)(query_, payload, dim));
}

float Scorer::rough(const uint8_t* record) {
  if (records_.precision == Precision::kInt1) {
    const uint8_t* payload = record + kRecordHead;
    int32_t set = 0;
    for (uint64_t b = 0; b < sums_.size() / 256; ++b) set += sums_[256 * b + payload[b]];
    return from_product(record, step_ * (2.0f * static_cast<float>(set) - sum_));
  }
  if (records_.precision != Precision::kInt2) return distance(record);
  const int32_t levels = kernels_.dot2(strips_.data(), record + kRecordHead,
                                       static_cast<uint32_t>(strips_.size() / 4));
  return from_product(record, step_ * (2.0f * static_cast<float>(levels) - 3.0f * sum_));
}

int64_t rescore(const Kernels& kernels, const Records& records, Scorer& scorer,
                const uint32_t* slots, uint64_t count, float* out) {
  for (uint64_t i = 0; i < count; ++i) {
    if (slots[i] >= records.count) return slots[i];
    const uint8_t* record = records.first + slots[i] * records.size;
#if defined(__GNUC__)
    if (i + 4 < count && slots[i + 4] < records.count) {
      const uint8_t* ahead = records.first + slots[i + 4] * records.size;
      for (uint64_t line = 0; line < records.size; line += 64) __builtin_prefetch(ahead + line);
    }
#endif
    if (!record_holds(kernels, record, records.size, slots[i])) return slots[i];
    out[i] = scorer.distance(record);
  }
  return kAllGood;
}

namespace {

double product(const float* a, const float* b, uint32_t dim) {
  double sum = 0;
  for (uint32_t i = 0; i < dim; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

bool comfortable(double square) { return square > 1e-15 && square < 1e15; }

}  // namespace

void score_rows(const Kernels& kernels, Metric metric, const float* query, const float* rows,
                uint64_t count, uint32_t dim, float* out) {
  const double query_square = product(query, query, dim);
  for (uint64_t i = 0; i < count; ++i) {
    const float* row = rows + i * dim;
    const auto* payload = reinterpret_cast<const uint8_t*>(row);
    if (metric == Metric::kSquaredL2 || metric == Metric::kHamming) {  // of zeros and ones
      out[i] = kernels.l2_32(query, payload, 1.0f, dim);
      continue;
    }
    double dot = kernels.dot32(query, payload, dim);
    if (metric == Metric::kInnerProduct) {
      out[i] = static_cast<float>(-dot);
      continue;
    }
    double square = kernels.dot32(row, payload, dim);
    if (!comfortable(square) || !comfortable(query_square)) {
      dot = product(query, row, dim);
      square = product(row, row, dim);
    }
    const double lengths = std::sqrt(square) * std::sqrt(query_square);
    out[i] = lengths > 0 ? static_cast<float>(1.0 - dot / lengths) : 1.0f;
  }
}

}  // namespace memdb
