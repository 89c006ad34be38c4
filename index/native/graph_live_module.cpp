// Bindings of linking in place: see module.cpp for the rules, which hold here too.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

#include "bindings.h"
#include "graph_live.h"

namespace nb = nanobind;
using namespace memdb;

namespace {

GraphPages pages_of(In<uint8_t, 2> pages, Array<uint8_t, 1> checked, uint32_t degree,
                    In<uint32_t, 1> places) {
  require(pages.shape(1) == kPageBytes && checked.shape(0) == pages.shape(0),
          "pages: (n, 4096), checked: (n,)");
  require(degree >= 1 && degree <= kMostDegree, "degree: 1 ... 64");
  return {pages.data(), pages.shape(0), degree, places.data(), places.shape(0),
          reinterpret_cast<std::atomic<uint8_t>*>(checked.data())};
}

// Links the slots, or unlinks them; returns how many lists changed.
uint64_t change(uint32_t level, bool unlink, In<uint8_t, 2> pages, Array<uint8_t, 1> checked,
                uint32_t degree, In<uint32_t, 1> places, In<uint32_t, 1> entries,
                In<uint8_t, 2> entry_rows, In<uint8_t, 1> groups, In<uint8_t, 2> records,
                uint32_t metric, uint32_t precision, In<float, 2> signs, In<float, 1> centre,
                float longest, In<uint32_t, 1> slots, uint32_t breadth, float alpha,
                Array<uint32_t, 1> changed, Array<uint32_t, 2> lists, uint32_t patience_ms) {
  const Kernels& kernels = table(level);
  const uint32_t dim = static_cast<uint32_t>(centre.shape(0)), bytes = 8 * words_of(dim);
  const Records view = records_of(records, dim, metric, precision);
  require(view.precision != Precision::kBits, "precision: not of bits");
  require(groups.shape(0) % (bytes + 4) == 0, "rows: whole rows");
  const RowCodes codes = {groups.data(), groups.shape(0) / (bytes + 4), dim, bytes};
  const GraphPages graph = pages_of(pages, checked, degree, places);
  require(signs.shape(0) == kRotationRounds && signs.shape(1) == dim, "signs: (4, dim)");
  require(entry_rows.shape(0) == entries.shape(0) && entry_rows.shape(1) == codes.stride(),
          "entries: (n,) slots and (n, stride) rows");
  require(breadth >= 1 && alpha >= 1.0f, "breadth, alpha: at least 1");
  require(changed.shape(0) == lists.shape(0) && lists.shape(1) == 1 + degree &&
              changed.shape(0) >= slots.shape(0) * most_changed(degree, breadth),
          "changed: (n,), lists: (n, 1 + degree), with room for all");
  for (size_t i = 0; i < slots.shape(0); ++i)
    require(slots.data()[i] < codes.count && slots.data()[i] < view.count &&
                slots.data()[i] >> kSlotBits == 0,
            "slots: within codes, records and 24 bits");
  const LiveRequest request = {
      &graph, &codes, &view,
      {entries.data(), entry_rows.data(), static_cast<uint32_t>(entries.shape(0))},
      signs.data(), centre.data(), longest, slots.data(), slots.shape(0), breadth, alpha};
  const ChangedLists out = {changed.data(), lists.data(), changed.shape(0)};
  nb::gil_scoped_release release;
  const auto work = [&](const LiveRequest& one) {
    return unlink ? unlink_in_place(kernels, one, out) : link_in_place(kernels, one, out);
  };
  uint64_t found = 0;
  if (patience_ms > 0 && when_idle(request, patience_ms, work, found)) return found;
  return work(request);
}

uint64_t graph_pages(uint32_t level, In<uint8_t, 2> pages, Array<uint8_t, 1> checked,
                     uint32_t degree, In<uint32_t, 1> slots, In<uint32_t, 1> places,
                     In<uint32_t, 2> lists, Array<uint32_t, 1> numbers,
                     Array<uint8_t, 2> made) {
  const GraphPages graph = pages_of(pages, checked, degree, places);
  const uint64_t count = slots.shape(0);
  require(places.shape(0) == count && lists.shape(0) == count && lists.shape(1) == 1 + degree,
          "slots, places: (n,), lists: (n, 1 + degree)");
  require(numbers.shape(0) >= count && made.shape(0) >= count && made.shape(1) == kPageBytes,
          "numbers, made: room for a page a list");
  for (size_t i = 0; i < count; ++i)
    require(places.data()[i] >> 8 < graph.count &&
                (places.data()[i] & 0xff) < records_per_page(degree),
            "places: within the pages");
  nb::gil_scoped_release release;
  return pages_with(table(level), graph, slots.data(), places.data(), lists.data(), count,
                    numbers.data(), made.data());
}

void graph_leads(uint32_t level, In<uint8_t, 2> pages, Array<uint8_t, 1> checked,
                 uint32_t degree, In<uint32_t, 1> places, In<uint32_t, 1> entries,
                 Array<uint8_t, 1> reached) {
  const GraphPages graph = pages_of(pages, checked, degree, places);
  require(reached.shape(0) == graph.place_count, "reached: (places,)");
  nb::gil_scoped_release release;
  mark_led_to(table(level), graph,
              {entries.data(), nullptr, static_cast<uint32_t>(entries.shape(0))},
              reached.data());
}

// Marks in `sound` the pages whose checksum and number hold.
void check_pages(uint32_t level, In<uint8_t, 2> pages, uint32_t first, Array<uint8_t, 1> sound) {
  require(pages.shape(1) == kPageBytes && sound.shape(0) == pages.shape(0),
          "pages: (n, 4096), sound: (n,)");
  const Kernels& kernels = table(level);
  nb::gil_scoped_release release;
  for (size_t i = 0; i < pages.shape(0); ++i)
    sound.data()[i] = page_settles(kernels, pages.data() + i * kPageBytes,
                                   first + static_cast<uint32_t>(i));
}

}  // namespace

void bind_live_graph(nb::module_& module) {
  using namespace nb::literals;
  const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
  module.def("graph_change", &change, "level"_a, "unlink"_a, array("pages"), array("checked"),
             "degree"_a, array("places"), array("entries"), array("entry_rows"),
             array("groups"), array("records"), "metric"_a, "precision"_a, array("signs"),
             array("centre"), "longest"_a, array("slots"), "breadth"_a, "alpha"_a,
             array("changed"), array("lists"), "patience_ms"_a);
  module.def("graph_pages", &graph_pages, "level"_a, array("pages"), array("checked"),
             "degree"_a, array("slots"), array("places"), array("lists"), array("numbers"),
             array("made"));
  module.def("graph_leads", &graph_leads, "level"_a, array("pages"), array("checked"),
             "degree"_a, array("places"), array("entries"), array("reached"));
  module.def("check_pages", &check_pages, "level"_a, array("pages"), "first"_a, array("sound"));
}
