// The `keep` smallest of a stream of candidates, at a few operations each.
//
// What is wanted is exact: the smallest by key, then by slot. Slots come ascending, so of equal
// keys those that came first stay. A threshold says what need not be offered any more; the sooner
// it falls, the fewer are. Sorting out twice the number again and again costs more than all else
// where the list is long, so keys are counted in bins once there are enough to know their range:
// as soon as the bins below the last one hold `keep`, that one is closed, and the threshold is its
// lower end.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "search.h"

namespace memdb {

class Shortlist {
 public:
  Shortlist(uint32_t keep, std::vector<Candidate>& found) : keep_(keep), found_(found) {
    found_.clear();
    found_.reserve(4 * static_cast<size_t>(keep) + 2 * kSpare);
  }

  // NaN while fewer than `keep` are known: everything passes.
  float threshold() const { return threshold_; }

  void offer(float key, uint32_t slot) {
    // A key that is not a number comes from a damaged factor: let the record decide.
    if (std::isnan(key)) key = -std::numeric_limits<float>::infinity();
    if (scale_ > 0.0f) {
      const uint32_t bin = bin_of(key);
      if (bin > last_) return;  // its bin was closed since it passed
      ++counts_[bin];
      ++within_;
    }
    found_.push_back({key, slot});
  }

  // To be called now and then, and when all have come, `last`.
  void settle(bool last) {
    if (scale_ > 0.0f) {
      close_bins();
      if (!last && found_.size() < 4 * static_cast<size_t>(keep_) + kSpare) return;
      const auto beyond = [this](const Candidate& one) { return bin_of(one.key) > last_; };
      found_.erase(std::remove_if(found_.begin(), found_.end(), beyond), found_.end());
    }
    if (found_.size() < 2 * static_cast<size_t>(keep_) && !(last && found_.size() > keep_)) return;
    std::nth_element(found_.begin(), found_.begin() + (keep_ - 1), found_.end());
    found_.resize(keep_);
    threshold_ = found_[keep_ - 1].key;
    if (!last) open_bins();
  }

 private:
  static constexpr uint32_t kBins = 512;
  static constexpr size_t kSpare = 1024;

  // Grows with the key, whatever the rounding.
  uint32_t bin_of(float key) const {
    const float at = (key - lowest_) * scale_;
    if (!(at > 0.0f)) return 0;
    return at < static_cast<float>(kBins - 1) ? static_cast<uint32_t>(at) : kBins - 1;
  }

  // Bins for keys between the least known and the threshold, with those known in them.
  void open_bins() {
    lowest_ = threshold_;
    for (const Candidate& one : found_) lowest_ = std::min(lowest_, one.key);
    const float range = threshold_ - lowest_;
    scale_ = std::isfinite(range) && range > 0.0f ? static_cast<float>(kBins) / range : 0.0f;
    if (!std::isfinite(scale_)) scale_ = 0.0f;
    if (scale_ == 0.0f) return;
    counts_.fill(0);
    for (const Candidate& one : found_) ++counts_[bin_of(one.key)];
    within_ = keep_;
    last_ = kBins - 1;
  }

  // Close the last bins as long as the others hold enough; what lies beyond is of no use.
  void close_bins() {
    const uint32_t before = last_;
    while (last_ > 0 && within_ - counts_[last_] >= keep_) within_ -= counts_[last_--];
    if (last_ == before) return;
    float end = lowest_ + static_cast<float>(last_ + 1) / scale_;
    while (bin_of(end) <= last_) end = std::nextafter(end, std::numeric_limits<float>::infinity());
    threshold_ = std::min(threshold_, end);
  }

  uint32_t keep_;
  std::vector<Candidate>& found_;
  float threshold_ = std::numeric_limits<float>::quiet_NaN();
  float lowest_ = 0.0f;
  float scale_ = 0.0f;  // bins a unit of key; 0 without bins
  uint64_t within_ = 0;  // candidates in bins 0 ... last_
  uint32_t last_ = 0;
  std::array<uint32_t, kBins> counts_;
};

}  // namespace memdb
