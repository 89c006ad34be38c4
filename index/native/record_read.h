// Records that are read and not mapped: those of a search's list in one batch, and listed ones.
#pragma once
#include <cstdint>
#include <vector>

#include "graph_read.h"
#include "graph_refine.h"

namespace memdb {

// Records that are read and scored while a walk is still going, beside its pages.
class RecordsAhead {
 public:
  static constexpr uint32_t kMostAway = 16;

  RecordsAhead(const Kernels& kernels, const Records& records, const Prepared& prepared,
               const ReadSources& sources)
      : kernels_(kernels), records_(records), scorer_(kernels, records, prepared.scored),
        sources_(sources) {}

  uint32_t away() const { return away_; }
  // Sends for a record, unless it was sent for before or too many are away.
  void send(uint32_t slot, Arrivals& arrivals);
  // Whether a job that has arrived is one of these; its record is scored then, if it is sound.
  bool arrived(const ReadJob* job);
  // What was sent for and is not away any more, in no order; those that were not sound are missing.
  const std::vector<Candidate>& scored() const { return scored_; }
  bool sent(uint32_t slot) const { return any_ && sent_.has(slot); }

 private:
  struct Trip {
    ReadJob job;
    uint32_t slot = 0;
    bool away = false;
  };
  const Kernels& kernels_;
  const Records& records_;
  Scorer scorer_;
  const ReadSources& sources_;
  Trip trips_[kMostAway];
  Buffer buffer_;
  Visited sent_;
  bool any_ = false;
  std::vector<Candidate> scored_;
  uint32_t away_ = 0;
};

// `refine` with one batch of reads: of what may be among the k nearest, judged by the estimates
// alone, but for those that were read ahead. Another follows where these were wrong, so that the
// same are scored in the end. `arrivals` has nothing under way but what was sent ahead.
int64_t refine_read(const Kernels& kernels, const Records& records, const Estimator& estimator,
                    const Prepared& prepared, const std::vector<Candidate>& list, uint32_t k,
                    const ReadSources& sources, Scratch& scratch, uint64_t& scored,
                    RecordsAhead& ahead, Arrivals& arrivals);

}  // namespace memdb
