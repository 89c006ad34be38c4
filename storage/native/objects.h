// Python's objects as the native code sees them: borrowed views of bytes, pairs, lists of numbers.
// A wrong type is a TypeError. Only calls of the stable ABI.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <vector>

#include "seal.h"

namespace memdb_storage {

namespace nb = nanobind;

void bind_filters(nb::module_& module);
void bind_keys(nb::module_& module);
void bind_terms(nb::module_& module);
void bind_reads(nb::module_& module);
void bind_samples(nb::module_& module);

inline Bytes view(PyObject* object) {
  char* data;
  Py_ssize_t size;
  if (PyBytes_AsStringAndSize(object, &data, &size) < 0) throw nb::python_error();
  return {reinterpret_cast<const uint8_t*>(data), static_cast<size_t>(size)};
}

inline nb::object new_bytes(size_t size) {
  PyObject* made = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
  if (made == nullptr) throw nb::python_error();
  return nb::steal(made);
}

inline nb::object new_bytes(const void* data, size_t size) {
  PyObject* made =
      PyBytes_FromStringAndSize(static_cast<const char*>(data), static_cast<Py_ssize_t>(size));
  if (made == nullptr) throw nb::python_error();
  return nb::steal(made);
}

// Of bytes that were made a moment ago and nobody else has.
inline uint8_t* bytes_of(const nb::object& made) {
  return reinterpret_cast<uint8_t*>(PyBytes_AsString(made.ptr()));
}

// The two items of a pair, borrowed.
struct Pair {
  PyObject* first;
  PyObject* second;

  explicit Pair(PyObject* pair) {
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2)
      throw nb::type_error("a pair is a tuple of two");
    first = PyTuple_GetItem(pair, 0);
    second = PyTuple_GetItem(pair, 1);
  }
};

inline nb::object new_tuple(std::initializer_list<nb::object> items) {
  PyObject* made = PyTuple_New(static_cast<Py_ssize_t>(items.size()));
  if (made == nullptr) throw nb::python_error();
  Py_ssize_t at = 0;
  for (const nb::object& item : items) {
    Py_INCREF(item.ptr());
    PyTuple_SetItem(made, at++, item.ptr());
  }
  return nb::steal(made);
}

inline uint64_t u64_of(PyObject* number) {
  const unsigned long long value = PyLong_AsUnsignedLongLong(number);
  if (value == static_cast<unsigned long long>(-1) && PyErr_Occurred()) throw nb::python_error();
  return value;
}

inline uint32_t u32_of(PyObject* number) {
  const uint64_t value = u64_of(number);
  if (value > 0xffffffffu) throw nb::value_error("a row is below 2**32");
  return static_cast<uint32_t>(value);
}

inline nb::object new_int(uint64_t number) {
  PyObject* made = PyLong_FromUnsignedLongLong(number);
  if (made == nullptr) throw nb::python_error();
  return nb::steal(made);
}

// The items of a list, borrowed while it stays as it is.
struct Items {
  PyObject* list;
  size_t size;

  explicit Items(PyObject* object) : list(object) {
    if (!PyList_Check(object)) throw nb::type_error("a list is needed");
    size = static_cast<size_t>(PyList_Size(object));
  }
  PyObject* operator[](size_t at) const {
    PyObject* item = PyList_GetItem(list, static_cast<Py_ssize_t>(at));
    if (item == nullptr) throw nb::python_error();
    return item;
  }
};

[[noreturn]] inline void corrupt(const char* problem) {
  const nb::object error = nb::module_::import_("memdb.errors").attr("StoreCorrupt");
  const nb::object raised = error(problem, nb::arg("path") = "kv");
  PyErr_SetObject(error.ptr(), raised.ptr());
  throw nb::python_error();
}

// The payload of a stored value; StoreCorrupt where its checksum fails.
inline Bytes payload_of(Bytes key, Bytes value) {
  Bytes payload;
  if (!unseal(key, value, &payload)) corrupt("a stored value fails its checksum");
  return payload;
}

}  // namespace memdb_storage
