#include "graph_walk.h"

namespace memdb {

float query_planes(const float* query, uint32_t dim, uint32_t words, uint64_t* planes) {
  constexpr float most_level = static_cast<float>((1u << kPlanes) - 1);
  float most = 0.0f;
  double square = 0.0;
  for (uint32_t i = 0; i < dim; ++i) {
    const float size = std::fabs(query[i]);
    most = size > most ? size : most;
    square += static_cast<double>(query[i]) * query[i];
  }
  if (dim >= 64) {
    const float cut = 3.0f * static_cast<float>(std::sqrt(square / dim));
    most = cut < most ? cut : most;
  }
  std::memset(planes, 0, sizeof(uint64_t) * kPlanes * words);
  const float step = most / most_level;
  if (!(step > 0.0f)) return 0.0f;
  const float inverse = 0.5f / step;
  for (uint32_t i = 0; i < dim; ++i) {
    float level = std::nearbyint(query[i] * inverse + 0.5f * most_level);
    level = level < 0.0f ? 0.0f : (level > most_level ? most_level : level);
    const uint32_t bits = static_cast<uint32_t>(level);
    for (uint32_t b = 0; b < kPlanes; ++b)
      planes[static_cast<size_t>(b) * words + i / 64] |= static_cast<uint64_t>((bits >> b) & 1)
                                                         << (i % 64);
  }
  return step;
}

void Visited::clear(uint32_t expected) {
  size_t size = 1024;
  uint32_t bits = 10;
  while (size < 2ULL * expected) {
    size *= 2;
    ++bits;
  }
  if (table_.size() > size) {
    table_.resize(size);
  }
  table_.assign(size, kEmpty);
  shift_ = 64 - bits;
  count_ = 0;
}

void Visited::grow() {
  std::vector<uint32_t> old = std::move(table_);
  table_.assign(2 * old.size(), kEmpty);
  --shift_;
  count_ = 0;
  for (const uint32_t slot : old)
    if (slot != kEmpty) insert(slot);
}

void nearest_entries(const Estimator& estimator, const Entries& entries,
                     std::vector<Candidate>& starts) {
  starts.clear();
  const uint8_t* rows[kMostDegree];
  float keys[kMostDegree];
  for (uint32_t first = 0; first < entries.count; first += kMostDegree) {
    const uint32_t count = std::min(kMostDegree, entries.count - first);
    for (uint32_t i = 0; i < count; ++i)
      rows[i] = entries.rows + (first + i) * estimator.codes().stride();
    estimator.keys(rows, count, keys);
    for (uint32_t i = 0; i < count; ++i) {
      const Candidate one = {keys[i], entries.slots[first + i]};
      if (starts.size() == kStarts) {
        if (!(one < starts.back())) continue;
        starts.pop_back();
      }
      starts.insert(std::upper_bound(starts.begin(), starts.end(), one), one);
    }
  }
}

}  // namespace memdb
