# Writes a template with another tile and an epilogue that reads operands: cmake -D IN=… -D OUT=… -D MR=… -D NR=… -P
file(READ ${IN} text)
string(REGEX REPLACE "#define MR +[0-9]+" "#define MR ${MR}" text "${text}")
string(REGEX REPLACE "#define NR +[0-9]+" "#define NR ${NR}" text "${text}")
string(REPLACE "  (void)o;\n  (void)row;\n  (void)col;\n  (void)lanes;\n  return acc;"
  "  return acc + vf_load_some(o[0].p + col, lanes) + vf_load_some(o[1].p + row * o[1].row + col, lanes);"
  text "${text}")
file(WRITE ${OUT} "${text}")
