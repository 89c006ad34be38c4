// Scoring of postings. Who calls has checked the sizes: a row past the array must not get here.
#include "score.h"

namespace memdb_storage {

uint64_t postings_end(const uint8_t* postings, size_t count) {
  uint64_t end = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t after = uint64_t{posting_row(postings + i * kPostingBytes)} + 1;
    if (after > end) end = after;
  }
  return end;
}

void add_scores(const uint8_t* postings, size_t count, const float* norm, float weight,
                float* scores) {
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* posting = postings + i * kPostingBytes;
    const float tf = static_cast<float>(posting[4]);
    float part = tf / (tf + norm[posting[5]]);
    part = part * weight;
    scores[posting_row(posting)] += part;
  }
}

void clear_scores(const uint8_t* postings, size_t count, float* scores) {
  for (size_t i = 0; i < count; ++i) scores[posting_row(postings + i * kPostingBytes)] = 0.0f;
}

}  // namespace memdb_storage
