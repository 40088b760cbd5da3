# Writes a template with another tile and an epilogue that reads operands:
#   cmake -D IN=… -D OUT=… -D MR=… -D NR=… [-D HOLES=NAME=VALUE:NAME=VALUE…] -P
file(READ ${IN} text)
string(REGEX REPLACE "#define MR +[0-9]+" "#define MR ${MR}" text "${text}")
string(REGEX REPLACE "#define NR +[0-9]+" "#define NR ${NR}" text "${text}")
string(REPLACE ":" ";" HOLES "${HOLES}")
foreach(HOLE ${HOLES})
  string(REPLACE "=" ";" HOLE "${HOLE}")
  list(GET HOLE 0 NAME)
  list(GET HOLE 1 VALUE)
  string(REGEX REPLACE "#define ${NAME} +[A-Za-z0-9_]+" "#define ${NAME} ${VALUE}" text "${text}")
endforeach()
string(REPLACE "  (void)o;\n  (void)row;\n  (void)col;\n  (void)lanes;\n  return acc;"
  "  return acc + vf_load_some(o[0].p + col, lanes) + vf_load_some(o[1].p + row * o[1].row + col, lanes);"
  text "${text}")
file(WRITE ${OUT} "${text}")
