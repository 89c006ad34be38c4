#include "graph_read.h"

#include "record_read.h"

namespace memdb {

namespace {

constexpr uint32_t kTries = 4;  // of a page that a writer may be at
constexpr uint32_t kCalm = 3;   // nodes in a row that brought nothing nearer: settled

// Records of slots, out of the cache or of the file; of one thread.
class NodeReader {
 public:
  enum class Found { kHere, kNowhere, kAway };

  NodeReader(const Kernels& kernels, const GraphPages& graph, const ReadSources& sources)
      : kernels_(kernels), graph_(graph), sources_(sources), page_(aligned_buffer(
            sources.pages->room(kPageBytes))) {}

  uint32_t page_of(uint32_t slot) const { return graph_.places[slot] >> 8; }

  // The slot's record, copied to `record`, if it can be had without waiting.
  Found find(uint32_t slot, uint8_t* record) {
    uint32_t page, offset;
    if (!place(slot, page, offset)) return Found::kNowhere;
    if (sources_.cache->copy(page, offset, graph_record_bytes(graph_.degree), record))
      return holds(slot, record);
    const uint64_t epoch = sources_.cache->epoch();
    ReadJob job = job_for(page, page_.get());
    if (!ask_.at_once(job)) return Found::kAway;
    if (!accept(page, job, epoch)) return Found::kNowhere;
    return take(slot, job.data, record);
  }

  // The same; waits for it.
  Found find_now(uint32_t slot, uint8_t* record) {
    const Found found = find(slot, record);
    if (found != Found::kAway) return found;
    const uint32_t page = page_of(slot);
    const uint64_t epoch = sources_.cache->epoch();
    ReadJob job = job_for(page, page_.get());
    sources_.pages->read(job);
    if (!accept(page, job, epoch)) return Found::kNowhere;
    return take(slot, job.data, record);
  }

  ReadJob job_for(uint32_t page, uint8_t* buffer) const {
    ReadJob job;
    job.file = sources_.pages;
    job.offset = static_cast<uint64_t>(page) * kPageBytes;
    job.length = kPageBytes;
    job.buffer = buffer;
    return job;
  }

  // Whether a page that was read is sound, which is remembered; then it is in the cache. A page
  // that fails is read again: a writer may have been half done.
  bool accept(uint32_t page, ReadJob& job, uint64_t epoch) {
    for (uint32_t attempt = 0;; ++attempt) {
      check_read(job);
      if (job.got == kPageBytes && page_is_sound(kernels_, job.data, page)) break;
      if (attempt + 1 == kTries) {
        graph_.checked[page].store(kTorn, std::memory_order_relaxed);
        return false;
      }
      std::this_thread::yield();
      epoch = sources_.cache->epoch();
      sources_.pages->read(job);
    }
    graph_.checked[page].store(kSound, std::memory_order_relaxed);
    sources_.cache->put(page, job.data, epoch);
    return true;
  }

  // The slot's record in a sound page.
  Found take(uint32_t slot, const uint8_t* page, uint8_t* record) const {
    const uint32_t at = graph_.places[slot] & 0xff;
    if (at >= records_per_page(graph_.degree)) return Found::kNowhere;
    const uint32_t size = graph_record_bytes(graph_.degree);
    std::memcpy(record, page + kPageHead + at * size, size);
    return holds(slot, record);
  }

  // Calls `visit` for every slot that has its record in a page that was read.
  template <class Visit>
  void visit_page(uint32_t page, const uint8_t* bytes, const Visit& visit) const {
    uint32_t slots[kPageBytes / graph_record_bytes(1)];
    const uint32_t count = records_per_page(graph_.degree);
    const uint32_t size = graph_record_bytes(graph_.degree);
    for (uint32_t at = 0; at < count; ++at) {
      std::memcpy(&slots[at], bytes + kPageHead + at * size, 4);
      slots[at] &= (1u << kSlotBits) - 1;
      if (slots[at] < graph_.place_count) prefetch(graph_.places + slots[at]);
    }
    for (uint32_t at = 0; at < count; ++at)
      if (slots[at] < graph_.place_count && graph_.places[slots[at]] == (page << 8 | at))
        visit(slots[at]);
  }

  uint32_t neighbours(const uint8_t* record, uint32_t* named) const {
    const uint32_t degree = std::min<uint32_t>({record[3], graph_.degree, kMostDegree});
    for (uint32_t i = 0; i < degree; ++i) {
      uint32_t word;
      std::memcpy(&word, record + 4 + 3 * i, 4);
      named[i] = word & ((1u << kSlotBits) - 1);
    }
    return degree;
  }

 private:
  bool place(uint32_t slot, uint32_t& page, uint32_t& offset) const {
    if (slot >= graph_.place_count) return false;
    const uint32_t place = graph_.places[slot], at = place & 0xff;
    page = place >> 8;
    if (place == kNowhere || page >= graph_.count || at >= records_per_page(graph_.degree))
      return false;
    offset = kPageHead + at * graph_record_bytes(graph_.degree);
    return graph_.checked[page].load(std::memory_order_relaxed) != kTorn;
  }

  static Found holds(uint32_t slot, const uint8_t* record) {
    uint32_t head;
    std::memcpy(&head, record, 4);
    return (head & ((1u << kSlotBits) - 1)) == slot ? Found::kHere : Found::kNowhere;
  }

  const Kernels& kernels_;
  const GraphPages& graph_;
  const ReadSources& sources_;
  Buffer page_;
  AskFirst ask_;
};

constexpr uint32_t kRecordRoom = graph_record_bytes(kMostDegree) + 1;  // read as words of four

// The pages of one walk that are in flight, and the nodes that wait for each; beside them records.
class Flight {
 public:
  Flight(NodeReader& nodes, const ReadSources& sources, RecordsAhead& ahead)
      : nodes_(nodes), sources_(sources), ahead_(ahead), arrivals_(*sources.pool) {}

  uint32_t count() const { return count_; }
  Arrivals& arrivals() { return arrivals_; }

  void send(const Candidate& node) {
    const uint32_t page = nodes_.page_of(node.slot);
    Trip* spare = nullptr;
    for (Trip& trip : trips_) {
      if (trip.waiting.empty()) {
        if (spare == nullptr) spare = &trip;
      } else if (trip.page == page) {
        trip.waiting.push_back(node);
        return;
      }
    }
    if (!spare->buffer) spare->buffer = aligned_buffer(sources_.pages->room(kPageBytes));
    spare->page = page;
    spare->epoch = sources_.cache->epoch();
    spare->job = nodes_.job_for(page, spare->buffer.get());
    arrived_.reserve(kMostDepth + RecordsAhead::kMostAway);
    spare->waiting.push_back(node);
    ++count_;
    arrivals_.send(&spare->job);
  }

  // Waits for one read or more; `visit(node, record)` for what waited and has a record there, then
  // `glance(page, bytes)`.
  template <class Visit, class Glance>
  void wait(const Visit& visit, const Glance& glance) {
    arrivals_.wait(arrived_);
    uint8_t record[kRecordRoom];
    for (ReadJob* job : arrived_) {
      if (ahead_.arrived(job)) continue;
      Trip& trip = trips_[trip_of(job)];
      nodes_here_.assign(trip.waiting.begin(), trip.waiting.end());
      trip.waiting.clear();
      --count_;
      if (!nodes_.accept(trip.page, trip.job, trip.epoch)) continue;
      for (const Candidate& node : nodes_here_)
        if (nodes_.take(node.slot, trip.job.data, record) == NodeReader::Found::kHere)
          visit(node, record);
      glance(trip.page, trip.job.data);
    }
  }

 private:
  struct Trip {
    ReadJob job;
    Buffer buffer;
    uint32_t page = 0;
    uint64_t epoch = 0;
    std::vector<Candidate> waiting;  // not empty: in flight
  };
  size_t trip_of(const ReadJob* job) const {
    for (size_t i = 0; i < kMostDepth; ++i)
      if (&trips_[i].job == job) return i;
    return 0;
  }

  NodeReader& nodes_;
  const ReadSources& sources_;
  RecordsAhead& ahead_;
  Trip trips_[kMostDepth];
  Arrivals arrivals_;  // after the trips: it goes first, and waits for those under way
  std::vector<ReadJob*> arrived_;
  std::vector<Candidate> nodes_here_;
  uint32_t count_ = 0;
};

// The list of `walk`: the nearest of all that was seen.
struct PlainFront {
  Frontier& frontier;

  bool next(Candidate& one) { return frontier.next(one); }
  bool wants(float key) const { return !(key > frontier.threshold()); }
  void offer(const Candidate& one) { frontier.insert(one); }
  // Calls `visit` for what will be scored in all likelihood, the nearest first, while it says so.
  template <class Visit>
  void likely(const Visit& visit) const {
    const std::vector<Candidate>& found = frontier.found();
    for (size_t at = 0; at < found.size() / 2; ++at)
      if (!visit(found[at].slot)) return;
  }
};

// That of a walk inside an allowed set: see walk_inside in graph.cpp.
struct InsideFront {
  std::vector<Candidate>& open;
  std::vector<Candidate>& inside;
  const Allowed& allowed;
  uint32_t breadth;

  bool full() const { return inside.size() >= breadth; }
  bool next(Candidate& one) {
    if (open.empty() || (full() && inside.front() < open.front())) return false;
    one = open.front();
    std::pop_heap(open.begin(), open.end(), farther);
    open.pop_back();
    return true;
  }
  bool wants(float) const { return true; }
  template <class Visit>
  void likely(const Visit&) const {}  // what it will keep shows at the end alone
  void offer(const Candidate& one) {
    const bool was_full = full();
    if (was_full && !(one < inside.front())) return;
    open.push_back(one);
    std::push_heap(open.begin(), open.end(), farther);
    if (!is_in(allowed, one.slot)) return;
    if (was_full) {
      std::pop_heap(inside.begin(), inside.end());
      inside.pop_back();
    }
    inside.push_back(one);
    std::push_heap(inside.begin(), inside.end());
  }
};

// Keeps up to so many pages in flight: few while the walk still comes nearer, since what it wants
// then will not matter soon; more and more once it does not.
class Depth {
 public:
  explicit Depth(uint32_t most) : most_(most), now_(std::min(kFirstDepth, most)) {}
  uint32_t now() const { return now_; }
  bool settled() const { return now_ == most_; }
  void looked(float nearest) {
    if (nearest < best_) {
      best_ = nearest;
      calm_ = 0;
    } else if (++calm_ >= kCalm) {
      calm_ = 0;
      now_ = std::min(most_, 2 * now_);
    }
  }

 private:
  uint32_t most_, now_, calm_ = 0;
  float best_ = std::numeric_limits<float>::infinity();
};

// False where it takes more than `most_hops`.
template <class Front>
bool read_walk(const Estimator& estimator, NodeReader& nodes, const ReadSources& sources,
               const Entries& entries, uint64_t most_hops, Front& front, WalkScratch& scratch,
               Flight& flight, RecordsAhead& ahead) {
  uint8_t record[kRecordRoom];
  const auto usable = [&](uint32_t slot) {  // see is_forgotten in graph.cpp
    uint8_t there[kRecordRoom];
    return estimator.factors(estimator.codes().row(slot)) != 0 ||
           nodes.find_now(slot, there) == NodeReader::Found::kHere;
  };
  nearest_entries(estimator, entries, scratch.starts);
  for (const Candidate& start : scratch.starts)
    if (start.slot < estimator.codes().count && scratch.visited.insert(start.slot))
      front.offer(start);
  Depth depth(sources.most_depth);
  Step step;
  const auto look = [&](const Candidate& here, const uint8_t* its_record) {
    const auto named = [&](uint32_t, uint32_t* into) { return nodes.neighbours(its_record, into); };
    look_at(estimator, named, here.slot, scratch, step);
    float nearest = std::numeric_limits<float>::infinity();
    for (uint32_t i = 0; i < step.count; ++i) {
      if (!front.wants(step.keys[i]) || !usable(step.slots[i])) continue;
      front.offer({step.keys[i], step.slots[i]});
      nearest = std::min(nearest, step.keys[i]);
    }
    depth.looked(nearest);
  };
  const auto glance = [&](uint32_t page, const uint8_t* bytes) {
    if (!sources.whole_pages) return;
    const uint8_t* rows[kMostDegree];
    const auto offer = [&]() {
      estimator.keys(rows, step.count, step.keys);
      scratch.estimated += step.count;
      for (uint32_t i = 0; i < step.count; ++i)
        if (front.wants(step.keys[i])) front.offer({step.keys[i], step.slots[i]});
      step.count = 0;
    };
    step.count = 0;
    nodes.visit_page(page, bytes, [&](uint32_t slot) {
      if (slot >= estimator.codes().count || !scratch.visited.insert(slot)) return;
      const uint8_t* row = estimator.codes().row(slot);
      prefetch(row);
      prefetch(row + estimator.codes().bytes);
      rows[step.count] = row;
      step.slots[step.count++] = slot;
      if (step.count == kMostDegree) offer();
    });
    offer();
  };
  for (uint64_t hops = 0;;) {
    Candidate here;
    // While pages are on their way, only as much is looked at as will still matter then.
    for (uint32_t looked = 0; flight.count() < depth.now() &&
                              (flight.count() == 0 || looked < depth.now()) && front.next(here);) {
      if (++hops > most_hops) return false;
      const NodeReader::Found found = nodes.find(here.slot, record);
      if (found == NodeReader::Found::kAway) flight.send(here);
      if (found != NodeReader::Found::kHere) continue;
      look(here, record);
      ++looked;
    }
    if (flight.count() == 0) return true;
    // What the disk could do beside these pages are records of the list.
    if (depth.settled())
      front.likely([&](uint32_t slot) {
        if (flight.count() + ahead.away() >= depth.now()) return false;
        ahead.send(slot, flight.arrivals());
        return true;
      });
    flight.wait(look, glance);
  }
}

int64_t search_one(const Kernels& kernels, const GraphRequest& request, const ReadSources& sources,
                   uint32_t at, Scratch& scratch, Counted& counted) {
  Estimator estimator(kernels, *request.codes);
  const Prepared prepared = prepare(request, at, estimator, scratch);
  NodeReader nodes(kernels, *request.graph, sources);
  RecordsAhead ahead(kernels, *request.records, prepared, sources);
  Flight flight(nodes, sources, ahead);
  WalkScratch& walk = scratch.walk;
  walk.hops = walk.estimated = 0;
  std::vector<Candidate>* list = &walk.inside;
  bool complete = true;
  if (request.inside) {
    walk.open.clear();
    walk.inside.clear();
    walk.visited.clear(request.breadth * 32);
    InsideFront front = {walk.open, walk.inside, request.allowed, request.breadth};
    complete = read_walk(estimator, nodes, sources, request.entries, request.most_hops, front,
                         walk, flight, ahead);
    std::sort_heap(walk.inside.begin(), walk.inside.end());
    complete = complete && walk.inside.size() >= std::min(request.breadth, request.k);
  } else {
    walk.frontier.clear(request.breadth);
    walk.frontier.reset();
    walk.visited.clear(request.breadth * 16);
    PlainFront front = {walk.frontier};
    read_walk(estimator, nodes, sources, request.entries, ~0ULL, front, walk, flight, ahead);
    std::vector<Candidate>& found = walk.frontier.found();
    const auto barred = [&](const Candidate& one) { return !is_in(request.allowed, one.slot); };
    found.erase(std::remove_if(found.begin(), found.end(), barred), found.end());
    list = &found;
  }
  complete = complete && join_beside(estimator, request, *list, walk.open);
  counted.hops += walk.hops;
  counted.estimated += walk.estimated + request.beside_count;
  uint32_t found = 0;
  if (complete) {
    const int64_t bad =
        refine_read(kernels, *request.records, estimator, prepared, *list, request.k, sources,
                    scratch, counted.scored, ahead, flight.arrivals());
    if (bad != kAllGood) return bad;
    found = static_cast<uint32_t>(scratch.best.size());
  }
  request.found[at] = found;
  const uint64_t row = static_cast<uint64_t>(at) * request.k;
  for (uint32_t i = 0; i < found; ++i) {
    request.slots[row + i] = scratch.best[i].slot;
    request.distances[row + i] = scratch.best[i].key;
  }
  return kAllGood;
}

}  // namespace

int64_t search_graph_read(const Kernels& kernels, const GraphRequest& request,
                          const ReadSources& sources) {
  std::atomic<uint64_t> hops{0}, estimated{0}, scored{0};
  const int64_t bad =
      on_threads(request.query_count, request.threads, [&](uint32_t at, Scratch& scratch) {
        Counted counted;
        const int64_t broken = search_one(kernels, request, sources, at, scratch, counted);
        hops += counted.hops;
        estimated += counted.estimated;
        scored += counted.scored;
        return broken;
      });
  request.counted[0] = hops;
  request.counted[1] = estimated;
  request.counted[2] = scored;
  return bad;
}

}  // namespace memdb
