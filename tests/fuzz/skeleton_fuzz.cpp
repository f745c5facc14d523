// Fuzzes the reader of .skeleton files: no input may crash it or make it read outside of the text,
// and with AVX-512 and without it must say the same. tests/data/test_skeleton_native.py holds both
// against the reader in Python, on the inputs kept in tests/fuzz/corpus/.
//
// With libFuzzer (clang):
//   clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -DLIBFUZZER
//     tests/fuzz/skeleton_fuzz.cpp csrc/skeleton_io/parse.cpp -o build/skeleton_fuzz
//   build/skeleton_fuzz -max_total_time=600 build/found tests/fuzz/corpus
//
// With any compiler, by the mutations below, which know what such a file looks like:
//   g++ -std=c++20 -O1 -g -Wno-uninitialized -fsanitize=address,undefined -fno-sanitize-recover=all
//     tests/fuzz/skeleton_fuzz.cpp csrc/skeleton_io/parse.cpp -o build/skeleton_fuzz
//   build/skeleton_fuzz SECONDS SEED build/found tests/fuzz/corpus
//
// The folder `build/found` must be there. Into it goes, next to the input of a crash, the shortest
// input of each outcome that was seen, under a name made from the outcome.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "../../csrc/skeleton_io/clip.h"

using skeleton_io::Clip;

namespace {

struct Outcome {
  std::string refusal;  // empty where the text was read
  Clip clip;
};

Outcome read(std::string_view text, bool pixels, bool simd) {
  try {
    return {"", skeleton_io::parse(text, pixels, simd)};
  } catch (const skeleton_io::Refused& refused) {
    return {refused.what(), {}};
  }
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || !std::memcmp(a.data(), b.data(), a.size() * sizeof(T)));
}

bool same(const Outcome& a, const Outcome& b) {
  const Clip &x = a.clip, &y = b.clip;
  return a.refusal == b.refusal && x.ids == y.ids && x.frames == y.frames &&
         same_bits(x.present, y.present) && same_bits(x.xyz, y.xyz) &&
         same_bits(x.tracking, y.tracking) && same_bits(x.depth, y.depth) &&
         same_bits(x.color, y.color);
}

void (*before_abort)() = [] {};

void hold(bool true_statement, const char* what) {
  if (true_statement) return;
  before_abort();
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

Outcome check(std::string_view text) {
  const Outcome plain = read(text, false, false);
  hold(same(plain, read(text, false, true)), "the same with and without AVX-512");
  const Outcome pixels = read(text, true, true);
  if (pixels.refusal.empty()) {
    hold(same_bits(plain.clip.xyz, pixels.clip.xyz), "the same with and without pixels");
  }
  const size_t cells = plain.clip.ids.size() * plain.clip.frames;
  hold(plain.clip.present.size() == cells, "present is (P, T)");
  hold(plain.clip.xyz.size() == cells * 25 * 3, "xyz is (P, T, V, 3)");
  return plain;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  check({reinterpret_cast<const char*>(data), size});
  return 0;
}

#ifndef LIBFUZZER

extern "C" void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Random = std::mt19937_64;
std::string found_folder;
std::string current;  // the input that runs

size_t below(Random& random, size_t count) { return count ? random() % count : 0; }

void save(const std::string& name, const std::string& text) {
  std::ofstream(found_folder + "/" + name, std::ios::binary) << text;
}

void save_current() { save("crash", current); }

std::string_view line_at(const std::string& text, size_t place) {
  const size_t before = place ? text.rfind('\n', place - 1) : std::string::npos;
  const size_t begin = before == std::string::npos ? 0 : before + 1;
  const size_t end = text.find('\n', begin);
  const size_t size = end == std::string::npos ? std::string::npos : end - begin + 1;
  return std::string_view(text).substr(begin, size);
}

// A field replaced by one that readers may stumble over.
void replace_field(std::string& text, Random& random) {
  static const char* const kFields[] = {"0",
                                        "-0",
                                        "-0.0",
                                        "nan",
                                        "-NaN",
                                        "inf",
                                        "-Infinity",
                                        "infinit",
                                        "1e-05",
                                        "1E+3",
                                        "1e400",
                                        "1e-400",
                                        "5e-324",
                                        "1e",
                                        ".",
                                        "1.",
                                        ".5",
                                        "-.5",
                                        "+1",
                                        "--1",
                                        "1.2.3",
                                        "1_0",
                                        "0x10",
                                        "",
                                        "9007199254740993",
                                        "0.30000001192092896",
                                        "123456789012345678901234567890",
                                        "0.000000000000001",
                                        "9.99999999999999",
                                        "99999999999999.9",
                                        "1.234567890123456",
                                        "25",
                                        "24",
                                        "1",
                                        "2",
                                        "255",
                                        "256",
                                        "1000000000",
                                        "99999999999999999999",
                                        "18446744073709551615",
                                        "007",
                                        "\t",
                                        "\r",
                                        "\v",
                                        "\x80",
                                        "\xEF\xBB\xBF",
                                        "-",
                                        "1e99999999999999999999",
                                        "0e99999999999999999999"};
  const size_t begin = text.find_first_of(" \n", below(random, text.size()));
  if (begin == std::string::npos) return;
  const size_t end = std::min(text.find_first_of(" \n", begin + 1), text.size());
  text.replace(begin + 1, end - begin - 1, kFields[below(random, std::size(kFields))]);
}

void mutate(std::string& text, const std::string& other, Random& random) {
  const size_t place = below(random, text.size());
  switch (random() % 12) {
    case 0:
      if (!text.empty()) text[place] ^= 1 << (random() % 8);
      break;
    case 1:
      text.resize(place);
      break;
    case 2:
      text = text.substr(0, place) + other.substr(below(random, other.size()));
      break;
    case 3:
      text.insert(place, std::string(line_at(text, place)));
      break;
    case 4: {
      const std::string_view line = line_at(text, place);
      text.erase(line.data() - text.data(), line.size());
      break;
    }
    case 5:
      text.insert(place, 1, " \t\r\n\v\f0.-\0"[random() % 10]);
      break;
    case 6:
      text.erase(place, 1 + below(random, 20));
      break;
    case 7:
      text.insert(place, std::string(1 + below(random, 200), "0 \n9"[random() % 4]));
      break;
    default:
      replace_field(text, random);
  }
}

// What happened, without the numbers and texts of the file.
std::string kind(const Outcome& outcome) {
  std::string out;
  if (outcome.refusal.empty()) {
    const Clip& clip = outcome.clip;
    bool odd[4] = {};  // nan, inf, denormal, negative zero
    for (const float x : clip.xyz) {
      odd[0] |= x != x;
      odd[1] |= x - x != 0 && x == x;
      odd[2] |= x != 0 && x < 1e-38f && x > -1e-38f;
      odd[3] |= x == 0 && 1 / x < 0;
    }
    out = clip.ids.size() > 1 ? "read bodies" : clip.ids.empty() ? "read nobody" : "read a body";
    static const char* const kOdd[] = {" nan", " inf", " denormal", " negative zero"};
    for (int i = 0; i < 4; ++i) out += odd[i] ? kOdd[i] : "";
    return out;
  }
  std::string_view said = outcome.refusal;
  const size_t first = said.find('\''), last = said.rfind('\'');  // around text of the file
  for (size_t i = 0; i < said.size(); ++i) {
    const bool digit = said[i] >= '0' && said[i] <= '9';
    if (!digit && (first == said.npos || i < first || i > last)) out += said[i];
  }
  return out;
}

std::string file_name(std::string text) {
  for (char& c : text) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return text;
}

std::vector<std::string> texts_of(const char* folder) {
  std::vector<std::string> texts;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    texts.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return texts;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) return std::cerr << "usage: SECONDS SEED FOUND CORPUS\n", 2;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(arguments[1]));
  Random random(std::atoi(arguments[2]));
  found_folder = arguments[3];
  __sanitizer_set_death_callback(save_current);
  before_abort = save_current;

  std::vector<std::string> texts = texts_of(arguments[4]);
  std::map<std::string, size_t> shortest;  // of each outcome
  uint64_t runs = 0, read = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    current = runs < texts.size() ? texts[runs] : texts[below(random, texts.size())];
    if (runs >= texts.size()) {
      for (size_t i = 1 + below(random, 4); i > 0; --i) {
        mutate(current, texts[below(random, texts.size())], random);
      }
    }
    const auto exact = std::make_unique<char[]>(current.size());  // so that no byte past it is ours
    std::memcpy(exact.get(), current.data(), current.size());
    const Outcome outcome = check({exact.get(), current.size()});
    read += outcome.refusal.empty();
    const std::string name = kind(outcome);
    const auto [known, is_new] = shortest.try_emplace(name, current.size());
    if (is_new || current.size() < known->second) {
      known->second = current.size();
      save(file_name(name), current);
      if (is_new) texts.push_back(current);
    }
  }
  std::cout << runs << " inputs, " << read << " of them read, " << shortest.size()
            << " unlike outcomes, no crash\n";
}

#endif
