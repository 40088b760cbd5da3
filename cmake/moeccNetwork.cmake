# moecc_add_network(NAME MODEL.onnx [TASKS TASK...] [TARGET MACHINE] [WEIGHTS file|embed|stream] [BARE] [OPTIONS OPTION...])
#
# Compiles a model to C whenever it has changed, and makes of it a static library NAME with the header NAME.h, which
# declares NAME_init and a function NAME_TASK for each task.
#
#   TASKS    only these of the model's tasks, in its order; without it the model is asked when CMake configures, and moecc
#            must have been built by then. With several tasks there is also NAME_all, which does them all.
#   TARGET   as `moecc compile --target`; the machine that CMake builds for by default
#   WEIGHTS  file (default): a file, whose path is the library's property MOECC_WEIGHTS; embed: in the library
#   BARE     no files, no threads: only what runs without an operating system
#   OPTIONS  more options of `moecc compile`, such as --dim batch=1
include_guard(GLOBAL)
set(MOECC_COMPILE_SCRIPT ${CMAKE_CURRENT_LIST_DIR}/moeccCompile.cmake)

# The machine that is built for.
function(_moecc_target result)
  set(target native)
  if(CMAKE_CROSSCOMPILING)
    set(target generic)
    foreach(known "x86_64|AMD64=x86-64-v2" "aarch64|arm64=aarch64" "riscv64=riscv64")
      string(REPLACE "=" ";" known "${known}")
      list(GET known 0 pattern)
      if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(${pattern})$")
        list(GET known 1 target)
      endif()
    endforeach()
  endif()
  set(${result} ${target} PARENT_SCOPE)
endfunction()

# The tasks of a model, as `moecc inspect` lists them.
function(_moecc_tasks result model options)
  get_target_property(imported moecc::moecc IMPORTED)
  if(NOT imported)
    message(FATAL_ERROR "moecc_add_network: moecc is built together with this project, so it cannot be asked for the tasks "
                        "of ${model}: name them with TASKS")
  endif()
  get_target_property(moecc moecc::moecc LOCATION)
  execute_process(COMMAND ${moecc} inspect ${model} --json ${options} OUTPUT_VARIABLE json ERROR_VARIABLE messages
                  RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "moecc_add_network: moecc does not accept ${model}:\n${messages}")
  endif()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${model})
  string(JSON count LENGTH "${json}" tasks)
  math(EXPR last "${count} - 1")
  foreach(i RANGE ${last})
    string(JSON name GET "${json}" tasks ${i} name)
    list(APPEND names "${name}")
  endforeach()
  set(${result} "${names}" PARENT_SCOPE)
endfunction()

function(moecc_add_network name model)
  cmake_parse_arguments(PARSE_ARGV 2 arg "BARE" "TARGET;WEIGHTS" "TASKS;OPTIONS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "moecc_add_network: unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT name MATCHES "^[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*$")
    message(FATAL_ERROR "moecc_add_network: \"${name}\" cannot begin the names of C functions")
  endif()
  cmake_path(ABSOLUTE_PATH model NORMALIZE)
  if(NOT EXISTS ${model})
    message(FATAL_ERROR "moecc_add_network: there is no ${model}")
  endif()
  if(NOT arg_TARGET)
    _moecc_target(arg_TARGET)
  endif()
  if(NOT arg_WEIGHTS)
    set(arg_WEIGHTS file)
  endif()
  set(options ${arg_OPTIONS})
  if(arg_TASKS)
    string(REPLACE ";" "," tasks "${arg_TASKS}")
    list(APPEND options --task ${tasks})
  else()
    _moecc_tasks(arg_TASKS ${model} "${options}")
  endif()

  set(folder ${CMAKE_CURRENT_BINARY_DIR}/${name}.moecc)
  set(flags ${CMAKE_CURRENT_BINARY_DIR}/${name}.moecc-flags)
  set(sources ${folder}/${name}.c ${folder}/${name}_kernels.c ${folder}/moecc_rt.c)
  foreach(task IN LISTS arg_TASKS)
    string(MAKE_C_IDENTIFIER "${task}" id)
    list(APPEND sources ${folder}/${name}_task_${id}.c)
  endforeach()
  list(LENGTH arg_TASKS count)
  if(count GREATER 1)
    list(APPEND sources ${folder}/${name}_all.c)
  endif()
  if(NOT arg_BARE)
    find_package(Threads REQUIRED)
    list(APPEND sources ${folder}/moecc_rt_file.c ${folder}/moecc_rt_direct.c ${folder}/moecc_rt_threads.c)
  endif()
  set(generated ${sources} ${folder}/${name}.h)
  if(arg_WEIGHTS STREQUAL embed)
    # Its form depends on the size: an array, or an assembly file. The script writes one that stands for either.
    list(APPEND sources ${CMAKE_CURRENT_BINARY_DIR}/${name}.moecc-weights.c)
  else()
    list(APPEND generated ${folder}/${name}_weights.bin)
  endif()

  add_custom_command(
    OUTPUT ${sources} ${folder}/${name}.h ${flags}
    BYPRODUCTS ${folder}/${name}_weights.bin
    COMMAND ${CMAKE_COMMAND} -D MOECC=$<TARGET_FILE:moecc::moecc> -D MODEL=${model} -D NAME=${name} -D FOLDER=${folder}
            -D "OPTIONS=--target;${arg_TARGET};--weights;${arg_WEIGHTS};${options}" -D "EXPECTED=${generated}"
            -P ${MOECC_COMPILE_SCRIPT}
    DEPENDS ${model} moecc::moecc ${MOECC_COMPILE_SCRIPT}
    COMMENT "Compiling ${name} from ONNX to C"
    VERBATIM)
  set_source_files_properties(${sources} PROPERTIES OBJECT_DEPENDS ${flags})

  add_library(${name} STATIC ${sources})
  target_include_directories(${name} PUBLIC ${folder})
  target_compile_options(${name} PRIVATE -O3 -ffp-contract=fast -ffunction-sections -fdata-sections @${flags})
  target_link_libraries(${name} PUBLIC m $<$<NOT:$<BOOL:${arg_BARE}>>:Threads::Threads>)
  set_target_properties(${name} PROPERTIES C_STANDARD 99 C_EXTENSIONS ON)
  if(NOT arg_WEIGHTS STREQUAL embed)
    set_target_properties(${name} PROPERTIES MOECC_WEIGHTS ${folder}/${name}_weights.bin)
  endif()
endfunction()
