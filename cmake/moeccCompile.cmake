# The build step of moecc_add_network: runs moecc (MOECC, MODEL, NAME, FOLDER, OPTIONS), then writes beside FOLDER what only
# the emitted folder can tell: FOLDER-flags, the flags of its target, and FOLDER-weights.c, the embedded weights. EXPECTED
# are the files that the build goes on with.
execute_process(COMMAND ${MOECC} compile ${MODEL} -o ${FOLDER} --name ${NAME} ${OPTIONS} RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "moecc could not compile ${MODEL}")
endif()
foreach(file IN LISTS EXPECTED)
  if(NOT EXISTS ${file})
    message(FATAL_ERROR "moecc did not write ${file}: are the names in TASKS identifiers?")
  endif()
endforeach()

file(READ ${FOLDER}/Makefile makefile)
if(NOT makefile MATCHES "\nTARGET_FLAGS := ([^\n]*)")
  message(FATAL_ERROR "${FOLDER}/Makefile does not say the flags of its target")
endif()
file(WRITE ${FOLDER}-flags "${CMAKE_MATCH_1}\n")

set(weights "/* Weights are read from a file. */\ntypedef int moecc_nothing;\n")
if(EXISTS ${FOLDER}/${NAME}_weights.S)
  # As an .include, which needs no assembler in the project's languages; with the place of the bytes written out.
  file(READ ${FOLDER}/${NAME}_weights.S assembly)
  string(REPLACE "\"${NAME}_weights.bin\"" "\"${FOLDER}/${NAME}_weights.bin\"" assembly "${assembly}")
  file(WRITE ${FOLDER}-weights.s "${assembly}")
  set(weights "__asm__(\".include \\\"${FOLDER}-weights.s\\\"\\n.text\\n\");\n")
elseif(EXISTS ${FOLDER}/${NAME}_weights.c)
  set(weights "#include \"${FOLDER}/${NAME}_weights.c\"\n")
endif()
file(WRITE ${FOLDER}-weights.c "${weights}")
