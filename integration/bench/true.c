/* The cheapest program there is, for the cost of fork, exec and exit alone. Built static. */
int main(void)
{
    return 0;
}
