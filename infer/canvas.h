// A picture in memory with rectangles and small text: enough to draw quality-control pages without a graphics library.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "nifti/lut.h"

namespace vg {

class Canvas {
 public:
  Canvas(int width, int height, Colour background);

  int width() const { return width_; }
  int height() const { return height_; }
  Colour at(int x, int y) const;
  void set(int x, int y, Colour c);  // outside the picture: nothing
  void fill(int x, int y, int width, int height, Colour c);
  // Letters of 5 x 7 pixels (descenders one more) in cells of 6 x 8, each pixel drawn `scale` times as wide and high; (x, y) is the upper
  // left corner. What is not printable ASCII is drawn as '?'. With `shadow`, a dark rim keeps the text readable on a picture.
  void text(int x, int y, std::string_view words, Colour c, int scale = 1, bool shadow = false);
  static int text_width(std::string_view words, int scale = 1) { return static_cast<int>(words.size()) * 6 * scale; }
  void write(const std::string& path) const;  // PNG, atomic

 private:
  int width_, height_;
  std::vector<std::uint8_t> rgb_;
};

}  // namespace vg
