// The module msclr.data._skeleton_io: used by msclr/data/skeleton/read.py only.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>

#include "clip.h"
#include "mapped_file.h"

namespace py = pybind11;
using skeleton_io::Clip;

namespace {

// An array that owns what was a vector.
template <class T, class Element = T>
py::array array(std::vector<Element>&& values, std::vector<py::ssize_t> shape) {
  auto* kept = new std::vector<Element>(std::move(values));
  py::capsule owner(kept, [](void* p) { delete static_cast<std::vector<Element>*>(p); });
  return py::array(py::dtype::of<T>(), std::move(shape), kept->data(), owner);
}

// (ids, present, xyz, tracking), and with pixels depth and color after them.
py::tuple to_python(Clip&& clip, bool pixels) {
  const py::ssize_t bodies = clip.ids.size(), frames = clip.frames, joints = skeleton_io::kJoints;
  auto present = array<bool>(std::move(clip.present), {bodies, frames});
  auto xyz = array<float>(std::move(clip.xyz), {bodies, frames, joints, 3});
  auto tracking = array<uint8_t>(std::move(clip.tracking), {bodies, frames, joints});
  if (!pixels) return py::make_tuple(clip.ids, present, xyz, tracking);
  auto depth = array<float>(std::move(clip.depth), {bodies, frames, joints, 2});
  auto color = array<float>(std::move(clip.color), {bodies, frames, joints, 2});
  return py::make_tuple(clip.ids, present, xyz, tracking, depth, color);
}

py::tuple parse_bytes(const py::bytes& data, bool pixels, bool simd) {
  const std::string_view text = data;
  Clip clip;
  {
    py::gil_scoped_release others_run;
    clip = skeleton_io::parse(text, pixels, simd);
  }
  return to_python(std::move(clip), pixels);
}

py::tuple read_file(const std::string& path, bool pixels) {
  Clip clip;
  {
    py::gil_scoped_release others_run;
    const skeleton_io::MappedFile file(path.c_str());
    clip = skeleton_io::parse(file.text(), pixels);
  }
  return to_python(std::move(clip), pixels);
}

}  // namespace

PYBIND11_MODULE(_skeleton_io, module) {
  py::register_local_exception<skeleton_io::Refused>(module, "Refused", PyExc_ValueError);
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const std::system_error& error) {
      errno = error.code().value();
      PyErr_SetFromErrno(PyExc_OSError);
    }
  });
  module.def("parse", &parse_bytes, py::arg("data"), py::arg("pixels"), py::arg("simd") = true);
  module.def("read", &read_file, py::arg("path"), py::arg("pixels"));
}
