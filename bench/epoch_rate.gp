# Epochs per second and pause by dirty pages per epoch; `table` and `picture` come from bench/run.
set terminal svg size 900,420 background "white"
set output picture
set multiplot layout 1,2
set logscale xy
set grid
set key bottom left
set xlabel "dirty pages per epoch"
set ylabel "acked epochs per second"
plot for [i=0:1] table index i using 1:2 with linespoints title columnheader(1)
set ylabel "pause, microseconds"
set key top left
plot for [i=0:1] table index i using 1:3 with linespoints title columnheader(1)." p50", \
     for [i=0:1] table index i using 1:4 with linespoints dashtype 2 title columnheader(1)." p99"
unset multiplot
