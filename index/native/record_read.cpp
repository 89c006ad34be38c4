#include "record_read.h"

#include <unordered_map>

#include "codes.h"

namespace memdb {

void RecordsAhead::send(uint32_t slot, Arrivals& arrivals) {
  if (away_ == kMostAway) return;
  if (!any_) {
    sent_.clear(8 * kMostAway);
    any_ = true;
  }
  if (!sent_.insert(slot)) return;
  const uint32_t length = static_cast<uint32_t>(records_.size);
  const uint64_t step = (sources_.records->room(length) + kReadBlock - 1) / kReadBlock * kReadBlock;
  if (!buffer_) buffer_ = aligned_buffer(step * kMostAway);
  uint32_t at = 0;
  while (trips_[at].away) ++at;
  Trip& trip = trips_[at];
  trip.slot = slot;
  trip.away = true;
  trip.job = ReadJob();
  trip.job.file = sources_.records;
  trip.job.offset = slot * records_.size;
  trip.job.length = length;
  trip.job.buffer = buffer_.get() + at * step;
  ++away_;
  arrivals.send(&trip.job);
}

bool RecordsAhead::arrived(const ReadJob* job) {
  for (Trip& trip : trips_) {
    if (&trip.job != job) continue;
    trip.away = false;
    --away_;
    if (job->error == 0 && job->got == job->length &&
        record_holds(kernels_, job->data, records_.size, trip.slot))
      scored_.push_back({scorer_.distance(job->data), trip.slot});
    return true;
  }
  return false;
}

namespace {

constexpr uint32_t kTries = 4;  // of a record that a writer may be at
constexpr uint32_t kRecordsAtOnce = 128;
constexpr uint64_t kRunBytes = 64 << 10;
constexpr uint32_t kRunsAtOnce = 16;
constexpr float kLikely = 1.0f / kDoubt;  // of the doubt: one standard error

// Reads records and hands them over, up to kRecordsAtOnce at a time.
class RecordBatch {
 public:
  RecordBatch(const Kernels& kernels, const Records& records, const ReadSources& sources,
              RecordsAhead& ahead, Arrivals& arrivals)
      : kernels_(kernels), records_(records), sources_(sources), ahead_(ahead),
        arrivals_(arrivals) {}

  // `visit(i, record)` for each of the slots; the first whose record is missing or damaged.
  template <class Visit>
  int64_t read(const std::vector<uint32_t>& slots, const Visit& visit) {
    const auto other = [&](ReadJob* job) { ahead_.arrived(job); };
    if (slots.empty()) read_all(arrivals_, jobs_, 0, other);
    const uint64_t room = (sources_.records->room(static_cast<uint32_t>(records_.size)) +
                           kReadBlock - 1) / kReadBlock * kReadBlock;
    const uint64_t step = sources_.records->room(1) == 1 ? records_.size : room;
    if (!buffer_) buffer_ = aligned_buffer(step * kRecordsAtOnce);
    jobs_.resize(kRecordsAtOnce);
    for (size_t first = 0; first < slots.size(); first += kRecordsAtOnce) {
      const size_t count = std::min<size_t>(kRecordsAtOnce, slots.size() - first);
      for (size_t i = 0; i < count; ++i) {
        jobs_[i] = ReadJob();
        jobs_[i].file = sources_.records;
        jobs_[i].offset = slots[first + i] * records_.size;
        jobs_[i].length = static_cast<uint32_t>(records_.size);
        jobs_[i].buffer = buffer_.get() + i * step;
      }
      read_all(arrivals_, jobs_, count, other);
      for (size_t i = 0; i < count; ++i) {
        if (!holds(jobs_[i], slots[first + i])) return slots[first + i];
        visit(first + i, jobs_[i].data);
      }
    }
    return kAllGood;
  }

 private:
  bool holds(ReadJob& job, uint32_t slot) {
    for (uint32_t attempt = 0; attempt < kTries; ++attempt) {
      if (job.got == job.length && record_holds(kernels_, job.data, records_.size, slot))
        return true;
      std::this_thread::yield();
      sources_.records->read(job);
      check_read(job);
    }
    return false;
  }

  const Kernels& kernels_;
  const Records& records_;
  const ReadSources& sources_;
  RecordsAhead& ahead_;
  Arrivals& arrivals_;
  Buffer buffer_;
  std::vector<ReadJob> jobs_;
};

}  // namespace

int64_t refine_read(const Kernels& kernels, const Records& records, const Estimator& estimator,
                    const Prepared& prepared, const std::vector<Candidate>& list, uint32_t k,
                    const ReadSources& sources, Scratch& scratch, uint64_t& scored,
                    RecordsAhead& ahead, Arrivals& arrivals) {
  Scorer scorer(kernels, records, prepared.scored);
  RecordBatch batch(kernels, records, sources, ahead, arrivals);
  std::vector<Candidate>& best = scratch.best;
  best.clear();
  std::vector<float> likely, least(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const float doubt =
        prepared.doubt * std::fabs(estimator.slope(estimator.codes().row(list[i].slot)));
    const float about = list[i].key + prepared.to_distance;
    likely.push_back(about + kLikely * doubt);
    least[i] = about - sources.doubt * doubt;
  }
  float limit = std::numeric_limits<float>::infinity();
  if (list.size() > k) {
    std::nth_element(likely.begin(), likely.begin() + (k - 1), likely.end());
    limit = likely[k - 1];
  }
  const auto keep = [&](const Candidate& one) {
    ++scored;
    if (best.size() == k) {
      if (!(one < best.back())) return;
      best.pop_back();
    }
    best.insert(std::upper_bound(best.begin(), best.end(), one), one);
  };
  std::vector<uint8_t> done(list.size(), 0), away(list.size(), 0);
  for (size_t i = 0; i < list.size(); ++i) done[i] = away[i] = ahead.sent(list[i].slot);
  const auto take_scored = [&]() {
    std::unordered_map<uint32_t, float> scored_ahead;
    for (const Candidate& one : ahead.scored()) scored_ahead[one.slot] = one.key;
    for (size_t i = 0; i < list.size(); ++i) {
      if (!away[i]) continue;
      const auto found = scored_ahead.find(list[i].slot);
      if (found == scored_ahead.end()) continue;
      away[i] = 0;
      keep({found->second, found->first});
    }
  };
  take_scored();
  if (best.size() == k) limit = std::min(limit, best.back().key);
  std::vector<uint32_t> wanted;
  for (bool first = true;; first = false) {
    wanted.clear();
    for (size_t i = 0; i < list.size(); ++i) {
      if (done[i] || least[i] > limit) continue;
      done[i] = 1;
      wanted.push_back(list[i].slot);
    }
    if (wanted.empty() && !first) return kAllGood;
    const int64_t bad = batch.read(wanted, [&](size_t i, const uint8_t* record) {
      keep({scorer.distance(record), wanted[i]});
    });
    if (bad != kAllGood) return bad;
    if (first) take_scored();
    for (size_t i = 0; first && i < list.size(); ++i)
      if (away[i]) done[i] = 0;  // it was not sound: it is read again, and its error told
    limit = best.size() < k ? std::numeric_limits<float>::infinity() : best.back().key;
  }
}

int64_t gather_rows_read(const Kernels& kernels, const GatherRequest& request,
                         const ReadSources& sources) {
  return on_threads(request.query_count, request.threads, [&](uint32_t at, Scratch& scratch) {
    Estimator estimator(kernels, *request.codes);
    const Prepared prepared = prepare(request, at, estimator, scratch);
    std::vector<Candidate>& found = scratch.walk.inside;
    nearest_listed(estimator, request.listed, request.listed_count, request.keep, found);
    uint64_t scored = 0;
    RecordsAhead none(kernels, *request.records, prepared, sources);
    Arrivals arrivals(*sources.pool);
    const int64_t bad = refine_read(kernels, *request.records, estimator, prepared, found,
                                    request.k, sources, scratch, scored, none, arrivals);
    if (bad != kAllGood) return bad;
    const uint64_t row = static_cast<uint64_t>(at) * request.k;
    for (uint32_t i = 0; i < request.k; ++i) {
      request.slots[row + i] = scratch.best[i].slot;
      request.distances[row + i] = scratch.best[i].key;
    }
    return kAllGood;
  });
}

int64_t rescore_read(const Kernels& kernels, const Records& records, const float* query,
                     const uint32_t* slots, uint64_t count, float* out,
                     const ReadSources& sources) {
  Scorer scorer(kernels, records, query);
  const uint64_t most = std::max<uint64_t>(1, kRunBytes / records.size);
  const uint64_t room = (sources.records->room(static_cast<uint32_t>(most * records.size)) +
                         kReadBlock - 1) / kReadBlock * kReadBlock;
  const Buffer buffer = aligned_buffer(room * kRunsAtOnce);
  std::vector<ReadJob> jobs(kRunsAtOnce);
  const Prepared as_given = {query, 0.0f, 0.0f};
  RecordsAhead none(kernels, records, as_given, sources);
  Arrivals arrivals(*sources.pool);
  RecordBatch again(kernels, records, sources, none, arrivals);
  for (uint64_t next = 0; next < count;) {
    size_t runs = 0;
    const uint64_t begun = next;
    for (; runs < kRunsAtOnce && next < count; ++runs) {
      const uint64_t first = next++;
      while (next < count && next - first < most && slots[next] == slots[next - 1] + 1) ++next;
      jobs[runs] = ReadJob();
      jobs[runs].file = sources.records;
      jobs[runs].offset = slots[first] * records.size;
      jobs[runs].length = static_cast<uint32_t>((next - first) * records.size);
      jobs[runs].buffer = buffer.get() + runs * room;
    }
    read_all(arrivals, jobs, runs, [](ReadJob*) {});
    uint64_t at = begun;
    for (size_t run = 0; run < runs; ++run) {
      for (uint64_t from = 0; from < jobs[run].length; from += records.size, ++at) {
        const uint8_t* record = jobs[run].data + from;
        const bool there = from + records.size <= jobs[run].got;
        if (there && record_holds(kernels, record, records.size, slots[at])) {
          out[at] = scorer.distance(record);
          continue;
        }
        const int64_t bad = again.read({slots[at]}, [&](size_t, const uint8_t* sound) {
          out[at] = scorer.distance(sound);
        });
        if (bad != kAllGood) return bad;
      }
    }
  }
  return kAllGood;
}

}  // namespace memdb
