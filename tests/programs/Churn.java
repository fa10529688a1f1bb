import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Threads that make garbage until the collector has run many times. */
public class Churn {
    private static long churn(int seed) {
        long sum = 0;
        Map<Integer, byte[]> kept = new HashMap<>();
        for (int i = 0; i < 20_000; i++) {
            byte[] block = new byte[4096 + (i * 31 + seed) % 4096];
            block[block.length - 1] = (byte) i;
            kept.put(i % 256, block);
            sum += kept.get((i * 7) % 256 % (i + 1)) == null ? 1 : block[block.length - 1];
        }
        return sum;
    }

    public static void main(String[] args) throws Exception {
        long[] sums = new long[4];
        List<Thread> threads = new ArrayList<>();
        for (int t = 0; t < sums.length; t++) {
            final int seed = t;
            Thread thread = new Thread(() -> sums[seed] = churn(seed));
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        for (long sum : sums) {
            System.out.println("sum " + sum);
        }
        System.out.println("churn done");
    }
}
